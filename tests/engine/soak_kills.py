"""`kill -9` of the engine and of workers at random, under load: `soak_kills.py --kills 200`.

Holds that every event whose receipt was answered led to one finished run, that no step which the engine had
given back as finished ran again, and tells how long runs stood still whose worker was killed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import socket
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

STEPS = 5
WORKERS = 2
OPEN_RUNS = 40
DEADLINE_S = 120


@dataclass
class Outcome:
    kills: int
    sent: int = 0
    lost: list[int] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    standstills: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    """As standstills, by the clock."""

    def __str__(self) -> str:
        still = sorted(self.standstills) or [0.0]
        return (
            f"{self.kills} kills, {self.sent} events: {len(self.lost)} lost, "
            f"{len(self.repeated)} finished steps run again; {len(self.standstills)} runs lost their worker, "
            f"and with engine and worker there went on after {still[len(still) // 2]:.2f} s (median), "
            f"{still[-1]:.2f} s (longest); by the clock, restarts included, "
            f"{max(self.waits, default=0):.2f} s at most"
        )


@dataclass
class Processes:
    """An engine and its workers; each can be killed and comes again."""

    folder: Path
    listener: socket.socket
    pause_ms: float
    port: int = 0
    engine: asyncio.subprocess.Process | None = None
    workers: list[asyncio.subprocess.Process] = field(default_factory=list)
    engine_outages: list[tuple[float, float]] = field(default_factory=list)
    worker_kills: list[float] = field(default_factory=list)

    @property
    def log(self) -> Path:
        return self.folder / "worker.log"

    async def start_engine(self) -> None:
        self.engine = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "flowctl.engine", "--port", str(self.port),
            "--db", str(self.folder / "engine.db"), stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert self.engine.stdout is not None
        ready = await asyncio.wait_for(self.engine.stdout.readline(), DEADLINE_S)
        self.port = int(ready.split(b":")[-1])

    async def start_worker(self) -> None:
        fd = self.listener.fileno()
        worker = await asyncio.create_subprocess_exec(
            sys.executable, str(Path(__file__).with_name("soak_worker.py")), str(fd), str(self.log),
            str(self.pause_ms), pass_fds=[fd],
        )  # fmt: skip
        self.workers.append(worker)

    async def kill_one(self) -> None:
        """Kill the engine or a worker, and start it again."""
        moment = time.time()
        if random.random() < 0.5:
            assert self.engine is not None
            await killed(self.engine)
            await self.start_engine()
            self.engine_outages.append((moment, time.time()))
            return
        await killed(self.workers.pop(random.randrange(len(self.workers))))
        self.worker_kills.append(moment)
        await self.start_worker()

    async def stop(self) -> None:
        for process in (self.engine, *self.workers):
            if process is not None and process.returncode is None:
                await killed(process)


async def killed(process: asyncio.subprocess.Process) -> None:
    process.kill()
    await process.wait()


async def soak(kills: int, *, pause_ms: float = 5, between_s: float = 0.3) -> Outcome:
    """Kill so often under load; answers what came of the runs."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
        processes = Processes(Path(folder), listener, pause_ms)
        try:
            return await _soak(processes, Outcome(kills), between_s)
        finally:
            await processes.stop()


async def _soak(processes: Processes, outcome: Outcome, between_s: float) -> Outcome:
    await processes.start_engine()
    for _ in range(WORKERS):
        await processes.start_worker()
    async with httpx.AsyncClient(timeout=30) as http:
        await register(http, processes)
        enough = asyncio.Event()
        sending = asyncio.create_task(send(http, processes, outcome, enough))
        for _ in range(outcome.kills):
            await asyncio.sleep(between_s * random.random() * 2)
            await processes.kill_one()
        enough.set()
        await sending
        await asyncio.wait_for(ended(processes, outcome.sent), DEADLINE_S)
    judge(lines(processes.log), outcome, processes)
    return outcome


async def register(http: httpx.AsyncClient, processes: Processes) -> None:
    url = f"http://127.0.0.1:{processes.listener.getsockname()[1]}/fn?stepId=step"
    step = {
        "id": "step",
        "name": "step",
        "runtime": {"type": "http", "url": url},
        "retries": {"attempts": 20},
    }
    function = {"id": "s-f", "name": "f", "triggers": [{"event": "s/f"}], "steps": {"step": step}}
    body = {"appName": "s", "url": url, "functions": [function]}
    (await http.post(f"http://127.0.0.1:{processes.port}/fn/register", json=body)).raise_for_status()


async def send(
    http: httpx.AsyncClient, processes: Processes, outcome: Outcome, enough: asyncio.Event
) -> None:
    """Keep some runs open; an event whose receipt was not answered is sent again, with the same id."""
    while not enough.is_set():
        if outcome.sent - finished(processes.log) < OPEN_RUNS:
            event = {"name": "s/f", "id": f"e{outcome.sent}", "data": {"i": outcome.sent, "n": STEPS}}
            with contextlib.suppress(httpx.HTTPError):
                answer = await http.post(f"http://127.0.0.1:{processes.port}/e/k", json=event)
                outcome.sent += answer.status_code == 200
        await asyncio.sleep(0.005)


async def ended(processes: Processes, sent: int) -> None:
    while finished(processes.log) < sent:  # noqa: ASYNC110 - other processes write the file
        await asyncio.sleep(0.05)


def lines(log: Path) -> list[tuple[float, str, int, int]]:
    """Moment, what happened, run, how many steps were finished."""
    words = (line.split() for line in log.read_text().splitlines())
    return [(float(at), what, int(run), int(known)) for at, what, run, known in words]


_finished: dict[Path, tuple[int, set[int]]] = defaultdict(lambda: (0, set()))


def finished(log: Path) -> int:
    """How many runs were asked with all steps finished, reading what is new in the log."""
    position, runs = _finished[log]
    if log.exists():
        with log.open("rb") as file:
            file.seek(position)
            new = file.read()
        new = new[: new.rfind(b"\n") + 1]
        done = f" {STEPS}".encode()
        runs |= {
            int(line.split()[2]) for line in new.splitlines() if b"asked" in line and line.endswith(done)
        }
        _finished[log] = (position + len(new), runs)
    return len(runs)


def judge(log: list[tuple[float, str, int, int]], outcome: Outcome, processes: Processes) -> None:
    known: dict[int, int] = defaultdict(int)
    by_run: dict[int, list[tuple[float, str]]] = defaultdict(list)
    for at, what, run, count in log:
        if what == "ran" and count < known[run]:
            outcome.repeated.append(f"{run}.{count}")
        if what == "asked":
            known[run] = max(known[run], count)
        if what != "up":
            by_run[run].append((at, what))
    outcome.lost = [run for run in range(outcome.sent) if known[run] < STEPS]
    ups = [at for at, what, *_ in log if what == "up"]
    outages = [*processes.engine_outages, *without_workers(ups, processes.worker_kills)]
    stood = [
        (moment, after[0][0])
        for moment in processes.worker_kills
        for happened in by_run.values()
        if (before := [line for line in happened if line[0] <= moment])
        and before[-1][1] == "asked"
        and (after := [line for line in happened if line[0] > moment])
        and after[0][1] == "asked"
    ]
    outcome.standstills = [available(*span, outages) for span in stood]
    outcome.waits = [until - since for since, until in stood]


def without_workers(ups: list[float], kills: list[float]) -> list[tuple[float, float]]:
    """When no worker was there at all."""
    changes = sorted([(at, 1) for at in ups] + [(at, -1) for at in kills])
    alive, outages, since = 0, [], 0.0
    for at, change in changes:
        alive += change
        if alive == 0:
            since = at
        elif alive == 1 and change == 1:
            outages.append((since, at))
    return outages


def available(since: float, until: float, outages: list[tuple[float, float]]) -> float:
    """The seconds between two moments in which the engine and a worker were there."""
    seconds, at = 0.0, since
    for begin, end in sorted(outages):
        if begin < until and end > at:
            seconds += max(0.0, begin - at)
            at = end
    return seconds + max(0.0, until - at)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    outcome: Any = asyncio.run(soak(parser.parse_args().kills))
    print(outcome)
    return 1 if outcome.lost or outcome.repeated or max(outcome.standstills, default=0) > 2 else 0


if __name__ == "__main__":
    sys.exit(main())
