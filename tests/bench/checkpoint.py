"""What a run on Inngest costs beside a driver that answers the same request and makes the same posts.

    python tests/bench/checkpoint.py [--runs 30]

Counts from 5 to 10 on the embedded engine (a process of its own). The driver knows no workflows: it takes the
engine's request, posts what was recorded of a real run, and answers. Both are timed from the event on.
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
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import inngest
import orjson
import uvicorn
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from flowctl import App, SQLiteStorage, StepContext, create_step, create_workflow, serve
from flowctl.runners.engine_api import EngineApi

Call = tuple[str, str, Any, Any]


class Counter(BaseModel):
    value: int


async def increment(ctx: StepContext[Counter]) -> Counter:
    return Counter(value=ctx.input_data.value + 1)


def counting() -> Any:
    step = create_step(id="increment", input_schema=Counter, output_schema=Counter, execute=increment)
    return (
        create_workflow(id="counting", input_schema=Counter, output_schema=Counter)
        .dountil(step, lambda ctx: ctx.input_data.value >= 10)
        .commit()
    )


class Recording(EngineApi):
    """An API that remembers what it was asked."""

    calls: list[Call]

    async def call(self, method: str, path: str, body: Any = None, params: Any = None) -> Any:
        self.calls.append((method, path, body, params))
        return await super().call(method, path, body, params)


class Driver:
    """An app that answers the engine's request after making the recorded posts."""

    def __init__(
        self, engine_url: str, http: httpx.AsyncClient, calls: list[Call], *, publishes: bool
    ) -> None:
        self.engine_url, self.http, self.publishes = engine_url, http, publishes
        self.checkpoints = [call for call in calls if "/checkpoint/" in call[1]]
        self.messages = [call for call in calls if "/realtime/" in call[1]]
        self.ended = asyncio.Event()

    async def answer(self, request: Request) -> Response:
        ctx = orjson.loads(await request.body())["ctx"]
        beside = asyncio.create_task(self.publish()) if self.publishes else None
        for _, _, body, _ in self.checkpoints:
            names = {"run_id": ctx["run_id"], "qi_id": ctx["qi_id"], "request_id": ctx["request_id"]}
            content = orjson.dumps(body | names | {"generation_id": ctx["generation_id"]})
            url = f"{self.engine_url}/v1/checkpoint/{ctx['run_id']}/async"
            (await self.http.post(url, content=content)).raise_for_status()
        if beside is not None:
            await beside
        self.ended.set()
        return JSONResponse({"value": 10}, headers={"x-inngest-sdk": "py:v0.5.19"})

    async def publish(self) -> None:
        for _, path, body, params in self.messages:
            url = f"{self.engine_url}{path}"
            await self.http.post(url, content=orjson.dumps(body), params=params)

    async def register(self, app_url: str) -> None:
        runtime = {"type": "http", "url": f"{app_url}?fnId=driver-f&stepId=step"}
        step = {"id": "step", "name": "step", "runtime": runtime, "retries": {"attempts": 0}}
        function = {"id": "driver-f", "name": "f", "triggers": [{"event": "d"}], "steps": {"step": step}}
        body = {"appName": "driver", "url": app_url, "functions": [function]}
        (await self.http.post(f"{self.engine_url}/fn/register", json=body)).raise_for_status()

    async def run(self) -> None:
        self.ended.clear()
        event = {"name": "d", "data": {"inputData": {"value": 5}}}
        (await self.http.post(f"{self.engine_url}/e/k", content=orjson.dumps(event))).raise_for_status()
        await self.ended.wait()


@contextlib.asynccontextmanager
async def served(asgi: Any) -> AsyncGenerator[str]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(asgi, log_level="error", lifespan="off"))
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
    task = asyncio.create_task(server.serve([listener]))
    while not server.started:  # noqa: ASYNC110 - uvicorn tells by a flag only
        await asyncio.sleep(0.001)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    await task


@contextlib.asynccontextmanager
async def engine() -> AsyncGenerator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "flowctl.engine", "--port", str(port), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    await process.stdout.readline()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


@contextlib.asynccontextmanager
async def flowctl_app(engine_url: str, storage: SQLiteStorage) -> AsyncGenerator[tuple[App, Recording]]:
    client = inngest.Inngest(
        app_id="bench", is_production=False, api_base_url=engine_url, event_api_base_url=engine_url
    )
    app = App(workflows=[counting()], inngest=client, storage=storage)
    bound = app.inngest_runner.bound(app.get_workflow("counting"))
    bound.api = recording = Recording(client)
    recording.calls = []
    web = Starlette(routes=[Route("/api/inngest", serve(app), methods=["GET", "POST", "PUT"])])
    async with served(web) as url, httpx.AsyncClient() as http:
        (await http.put(f"{url}/api/inngest")).raise_for_status()
        yield app, recording
        await app.stop()
        await recording.close()


async def timed(once: Callable[[], Awaitable[None]], runs: int) -> list[float]:
    times: list[float] = []
    for _ in range(runs):
        began = time.perf_counter()
        await once()
        times.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(0.02)
    return times


async def main(runs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        storage = SQLiteStorage(Path(folder) / "bench.db")
        async with (
            engine() as url,
            flowctl_app(url, storage) as (app, recording),
            httpx.AsyncClient() as http,
        ):

            async def count() -> None:
                run = await app.get_workflow("counting").create_run()
                result = await run.start(input_data={"value": 5})
                assert result.to_json()["result"] == {"value": 10}, result

            await timed(count, 3)
            await asyncio.sleep(0.3)
            recording.calls.clear()
            await count()
            await asyncio.sleep(0.3)
            calls = list(recording.calls)
            await compare(count, url, http, calls, runs)


async def compare(
    count: Callable[[], Awaitable[None]], url: str, http: httpx.AsyncClient, calls: list[Call], runs: int
) -> None:
    whole = Driver(url, http, calls, publishes=True)
    bare = Driver(url, http, calls, publishes=False)
    drivers = {"driver, all posts": whole, "driver, checkpoints only": bare}
    rows: dict[str, list[float]] = {name: [] for name in ["flowctl", *drivers]}
    for _ in range(3):
        rows["flowctl"] += await timed(count, runs // 3)
        for name, driver in drivers.items():
            async with served(Starlette(routes=[Route("/d", driver.answer, methods=["POST"])])) as app_url:
                await driver.register(f"{app_url}/d")
                await timed(driver.run, 2)
                rows[name] += await timed(driver.run, runs // 3)
    print(f"posts: {len(whole.checkpoints)} checkpoints, {len(whole.messages)} messages")
    ours = statistics.median(rows["flowctl"])
    for name, times in rows.items():
        middle = statistics.median(times)
        print(f"{name:26} {middle:7.2f} ms (best {min(times):6.2f})  flowctl is {ours / middle:4.2f} x")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=30)
    asyncio.run(main(parser.parse_args().runs))
