"""Many runs at once: `python tests/engine/soak_load.py --queued 100000 --parallel 1000`.

Queues runs behind a concurrency limit of one and tells, as the queue grows, the engine's memory, how long the
event API takes, and how long an unrelated run takes; then runs many others side by side to their end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
from soak_kills import Processes

BATCH = 100
SAMPLES = 40
STEPS = 10
DEADLINE_S = 300


@dataclass(frozen=True)
class Level:
    queued: int
    memory_mb: float
    event_ms: float
    run_ms: float
    processor_ms: float

    def __str__(self) -> str:
        return (
            f"{self.queued:>7} queued: {self.memory_mb:6.1f} MB, an event {self.event_ms:5.1f} ms, "
            f"an unrelated run {self.run_ms:5.1f} ms (medians), processor {self.processor_ms:4.1f} ms"
        )


@dataclass
class Load:
    http: httpx.AsyncClient
    processes: Processes
    sent: int = 0

    @property
    def engine_url(self) -> str:
        return f"http://127.0.0.1:{self.processes.port}"

    async def register(self) -> None:
        url = f"http://127.0.0.1:{self.processes.listener.getsockname()[1]}/fn?stepId=step"
        limited = function("one", url) | {"concurrency": [{"limit": 1}]}
        body = {"appName": "l", "url": url, "functions": [limited, function("free", url)]}
        (await self.http.post(f"{self.engine_url}/fn/register", json=body)).raise_for_status()

    async def post(self, *events: dict[str, Any]) -> list[str]:
        answer = await self.http.post(f"{self.engine_url}/e/k", json=events)
        answer.raise_for_status()
        return answer.json()["ids"]

    def event(self, name: str, steps: int, *, pause_ms: int = 5) -> dict[str, Any]:
        self.sent += 1
        return {"name": f"l/{name}", "data": {"i": self.sent, "n": steps, "pause": pause_ms}}

    async def queue(self, count: int) -> None:
        for _ in range(0, count, BATCH):
            await self.post(*(self.event("one", 1, pause_ms=200) for _ in range(BATCH)))

    async def level(self, queued: int) -> Level:
        """Measure with that many runs queued."""
        assert self.processes.engine is not None
        engine, events, runs = psutil.Process(self.processes.engine.pid), [], []
        used = engine.cpu_times()
        for _ in range(SAMPLES):
            began = time.perf_counter()
            [id] = await self.post(self.event("free", 1, pause_ms=0))
            events.append(time.perf_counter() - began)
            await self.ended(id)
            runs.append(time.perf_counter() - began)
        memory, now = engine.memory_info().rss / 1e6, engine.cpu_times()
        processor = (now.user + now.system - used.user - used.system) * 1000 / SAMPLES
        return Level(queued, memory, median_ms(events), median_ms(runs), processor)

    async def ended(self, event_id: str) -> dict[str, Any]:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                answer = await self.http.get(f"{self.engine_url}/v1/events/{event_id}/runs")
                if (runs := answer.json()["data"]) and runs[0]["ended_at"]:
                    return runs[0]
                await asyncio.sleep(0.002)

    async def parallel(self, count: int) -> tuple[int, float]:
        """Runs of ten steps side by side: how many completed, and the seconds until the last."""
        began, ids = time.perf_counter(), []
        for first in range(0, count, BATCH):
            ids += await self.post(*(self.event("free", STEPS) for _ in range(min(BATCH, count - first))))
        runs = [await self.ended(id) for id in ids]
        return sum(run["status"] == "Completed" for run in runs), time.perf_counter() - began


def function(name: str, url: str) -> dict[str, Any]:
    step = {"id": "step", "name": "step", "runtime": {"type": "http", "url": url}}
    return {"id": f"l-{name}", "name": name, "triggers": [{"event": f"l/{name}"}], "steps": {"step": step}}


def median_ms(seconds: list[float]) -> float:
    return sorted(seconds)[len(seconds) // 2] * 1000


@contextlib.asynccontextmanager
async def load() -> AsyncIterator[Load]:
    """An engine with a file, and a worker."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(2048)
        processes = Processes(Path(folder), listener, pause_ms=0)
        try:
            await processes.start_engine()
            await processes.start_worker()
            async with httpx.AsyncClient(timeout=60) as http:
                made = Load(http, processes)
                await made.register()
                yield made
        finally:
            await processes.stop()


async def soak(queued: int, parallel: int) -> list[Level]:
    """Print and answer what was measured at 1%, 10% and all of the queue."""
    levels: list[Level] = []
    async with load() as made:
        completed, seconds = await made.parallel(parallel)
        print(f"{completed} of {parallel} runs of {STEPS} steps completed in {seconds:.1f} s", flush=True)
        assert completed == parallel
    async with load() as made:
        await made.level(0)
        for goal in (queued // 100, queued // 10, queued):
            await made.queue(goal - (levels[-1].queued if levels else 0))
            levels.append(await made.level(goal))
            print(levels[-1], flush=True)
    return levels


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queued", type=int, default=100_000)
    parser.add_argument("--parallel", type=int, default=1_000)
    given = parser.parse_args()
    asyncio.run(soak(given.queued, given.parallel))
    return 0


if __name__ == "__main__":
    sys.exit(main())
