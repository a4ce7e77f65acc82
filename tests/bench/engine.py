"""What the engine adds to what its apps cost: the same function driven by the engine and by a bare loop.

    python tests/bench/engine.py [--runs 5] [--db] [--app sdk|bare]

The loop calls the app as an engine must, once a step, and keeps nothing. `sdk` is a function of inngest-py,
`bare` an ASGI app that answers by hand, which leaves the engine's own share. The two are timed in turn, from
the event on; quote the ratios. The engine's processor time a step is much the same on a busy machine.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import inngest
import orjson
import psutil
import uvicorn

from flowctl import App, serve
from flowctl.legs import LegLimits

APP, EVENT = "engine-bench", "bench/steps"
SEQUENTIAL, CONCURRENT_RUNS, CONCURRENT_STEPS = (1, 10, 100), 50, 10


def sdk(engine_url: str, ended: Callable[[str], None], *, seconds: float = 0) -> Any:
    """A function of n steps, served by flowctl: a request for each, unless one may take some seconds."""
    client = inngest.Inngest(
        app_id=APP, is_production=False, api_base_url=engine_url, event_api_base_url=engine_url
    )

    @client.create_function(fn_id="steps", trigger=inngest.TriggerEvent(event=EVENT), retries=0)
    async def steps(ctx: inngest.Context) -> int:
        value = 0

        async def increment() -> int:
            return value + 1

        for number in range(int(str(ctx.event.data["n"]))):
            value = await ctx.step.run(f"s{number}", increment)
        ended(str(ctx.event.data.get("key")))
        return value

    limits = LegLimits(seconds=seconds)
    return serve(App(workflows=[], functions=[steps], inngest=client, leg_limits=limits))


def bare(_: str, ended: Callable[[str], None]) -> Any:
    """The same by hand."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        body = bytearray(message["body"])
        while message.get("more_body"):
            message = await receive()
            body += message["body"]
        asked = orjson.loads(body)
        data, known = asked["event"]["data"], len(asked["steps"])
        if known == data["n"]:
            ended(str(data.get("key")))
        answer = [{"op": "StepRun", "id": f"s{known}", "data": known}]
        content = orjson.dumps(known if known == data["n"] else answer)
        headers = [(b"content-length", str(len(content)).encode()), (b"x-inngest-sdk", b"bare")]
        status = 200 if known == data["n"] else 206
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    return app


APPS = {"sdk": sdk, "function": partial(sdk, seconds=50), "bare": bare}


def serve_forever(kind: str, engine_url: str, port: int) -> None:
    """In a process of its own; `/ended/KEY` answers once the run with that key has ended."""
    moments = {"ready": asyncio.Event()}
    moments["ready"].set()

    def moment(key: str) -> asyncio.Event:
        return moments.setdefault(key, asyncio.Event())

    app = APPS[kind](engine_url, lambda key: moment(key).set())

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        if not scope["path"].startswith("/ended/"):
            await app(scope, receive, send)
            return
        await moment(scope["path"].removeprefix("/ended/")).wait()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    uvicorn.run(asgi, host="127.0.0.1", port=port, log_level="error", access_log=False, lifespan="off")


@dataclass
class Bench:
    http: httpx.AsyncClient
    app_url: str
    engine_url: str
    engine: psutil.Process
    keys: int = 0

    async def by_loop(self, n: int) -> None:
        """A run without an engine."""
        steps: dict[str, Any] = {}
        event = {"name": EVENT, "data": {"n": n}, "id": "e", "ts": 1}
        while True:
            ctx = {
                "run_id": "r", "fn_id": "f", "attempt": 0, "max_attempts": 1, "use_api": False,
                "disable_immediate_execution": False, "stack": {"stack": list(steps), "current": len(steps)},
            }  # fmt: skip
            body = {"ctx": ctx, "event": event, "events": [event], "steps": steps, "use_api": False}
            answer = await self.http.post(f"{self.app_url}?fnId={APP}-steps&stepId=step", json=body)
            if answer.status_code != 206:
                answer.raise_for_status()
                return
            steps |= {op["id"]: {"type": "data", "data": op["data"]} for op in answer.json()}

    async def by_engine(self, n: int) -> None:
        """A run from its event to its last call."""
        self.keys += 1
        event = {"name": EVENT, "data": {"n": n, "key": str(self.keys)}}
        key = self.keys
        (await self.http.post(f"{self.engine_url}/e/k", json=event)).raise_for_status()
        (await self.http.get(f"{self.app_url}/ended/{key}")).raise_for_status()

    async def compare(self, name: str, steps: int, once: Callable[[Any], Awaitable[Any]], runs: int) -> None:
        floors, engines, used = [], [], []
        for _ in range(runs):
            floors.append(await seconds(once(self.by_loop)))
            before = cpu(self.engine)
            engines.append(await seconds(once(self.by_engine)))
            used.append(cpu(self.engine) - before)
        floor, ours = statistics.median(floors), statistics.median(engines)
        print(
            f"{name:22} loop {floor / steps * 1e3:7.2f} ms/step   engine {ours / steps * 1e3:7.2f} ms/step   "
            f"ratio {ours / floor:5.2f}   {steps / ours:6.0f} steps/s   "
            f"engine's processor {sum(used) / runs / steps * 1e3:5.2f} ms/step",
            flush=True,
        )


def cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


async def seconds(work: Awaitable[Any]) -> float:
    began = time.perf_counter()
    await work
    return time.perf_counter() - began


@contextlib.asynccontextmanager
async def process(*arguments: str, ready: str) -> AsyncIterator[psutil.Process]:
    child = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        async with httpx.AsyncClient() as http, asyncio.timeout(60):
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    await http.get(ready)
                    break
                await asyncio.sleep(0.05)
        yield psutil.Process(child.pid)
    finally:
        child.terminate()
        await child.wait()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def register(http: httpx.AsyncClient, kind: str, engine_url: str, app_url: str) -> None:
    if kind == "sdk":
        (await http.put(app_url)).raise_for_status()
        return
    runtime = {"type": "http", "url": f"{app_url}?stepId=step"}
    step = {"id": "step", "name": "step", "runtime": runtime, "retries": {"attempts": 0}}
    function = {
        "id": f"{APP}-steps",
        "name": "steps",
        "triggers": [{"event": EVENT}],
        "steps": {"step": step},
    }
    body = {"appName": APP, "url": app_url, "functions": [function]}
    (await http.post(f"{engine_url}/fn/register", json=body)).raise_for_status()


async def main(kind: str, runs: int, *, keeps_file: bool) -> None:
    engine_port, app_port = free_port(), free_port()
    engine_url, app_url = f"http://127.0.0.1:{engine_port}", f"http://127.0.0.1:{app_port}"
    with tempfile.TemporaryDirectory() as folder:
        kept = ["--db", str(Path(folder) / "engine.db")] if keeps_file else []
        engine = ["-m", "flowctl.engine", "--port", str(engine_port), *kept]
        app = [__file__, "--serve", str(app_port), "--app", kind, "--engine", engine_url]
        async with (
            process(*engine, ready=f"{engine_url}/health") as engine_process,
            process(*app, ready=f"{app_url}/ended/ready"),
            httpx.AsyncClient(timeout=120, limits=httpx.Limits(max_connections=None)) as http,
        ):
            await register(http, kind, engine_url, app_url)
            bench = Bench(http, app_url, engine_url, engine_process)
            await bench.by_loop(3)
            await bench.by_engine(3)
            for n in SEQUENTIAL:
                await bench.compare(f"{n} steps", n, lambda drive, n=n: drive(n), runs)

            async def side_by_side(drive: Callable[[int], Awaitable[None]]) -> None:
                await asyncio.gather(*(drive(CONCURRENT_STEPS) for _ in range(CONCURRENT_RUNS)))

            name = f"{CONCURRENT_RUNS} runs of {CONCURRENT_STEPS} steps"
            await bench.compare(name, CONCURRENT_RUNS * CONCURRENT_STEPS, side_by_side, max(1, runs // 2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--app", choices=list(APPS), default="sdk")
    parser.add_argument("--db", action="store_true", help="the engine keeps a file")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--engine", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve_forever(given.app, given.engine, given.serve)
    else:
        asyncio.run(main(given.app, given.runs, keeps_file=given.db))
