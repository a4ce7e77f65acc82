"""The engine, an app and what a test does with them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import fastapi
import httpx
import inngest
import inngest.fast_api
import uvicorn

from flowctl.engine import Engine

DEADLINE_S = 10


@contextlib.asynccontextmanager
async def served(asgi: Any, listener: socket.socket) -> AsyncIterator[uvicorn.Server]:
    server = uvicorn.Server(
        uvicorn.Config(asgi, log_level="error", lifespan="off", timeout_graceful_shutdown=1)
    )
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
    task = asyncio.create_task(server.serve([listener]))
    while not server.started:  # noqa: ASYNC110 - uvicorn tells by a flag only
        await asyncio.sleep(0.001)
    try:
        yield server
    finally:
        server.should_exit = True
        await task


async def until(check: Callable[[], Awaitable[Any]], what: str = "the condition") -> Any:
    """The first true answer, or a failure that names what was waited for."""
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        if answer := await check():
            return answer
        await asyncio.sleep(0.005)
    raise AssertionError(f"{what} did not come about within {DEADLINE_S} s")


@dataclass
class World:
    """One engine, one app."""

    engine: Engine
    http: httpx.AsyncClient
    client: inngest.Inngest
    app_url: str
    functions: list[inngest.Function[Any]] = field(default_factory=list)
    served: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)
    listener: socket.socket = field(default_factory=socket.socket)

    def function(self, id: str, event: str | None = None, **options: Any) -> Callable[[Any], Any]:
        """Register what it decorates, triggered by the event of the same name."""
        trigger = options.pop("trigger", None) or inngest.TriggerEvent(event=event or f"t/{id}")

        def add(handler: Any) -> Any:
            function = self.client.create_function(fn_id=id, trigger=trigger, **options)(handler)
            self.functions.append(function)
            return function

        return add

    async def start(self) -> None:
        """Serve the app and sync it."""
        app = fastapi.FastAPI()
        inngest.fast_api.serve(app, self.client, self.functions)
        await self.served.enter_async_context(served(app, self.listener))
        answer = await self.http.put(self.app_url)
        assert answer.status_code == 200, answer.text

    async def register_at(self, port: int) -> None:
        """Have the engine reach the functions at another port of this machine."""
        configs = [config for f in self.functions if (config := f.get_config(self.app_url).main)]
        functions = [config.model_dump(mode="json", by_alias=True) for config in configs]
        for function in functions:
            for step in function["steps"].values():
                step["runtime"]["url"] = step["runtime"]["url"].replace(
                    f":{self.listener.getsockname()[1]}/", f":{port}/"
                )
        body = {"appName": "t", "url": self.app_url, "functions": functions}
        answer = await self.http.post(f"{self.engine.url}/fn/register", json=body)
        assert answer.status_code == 200, answer.text

    async def send(self, name: str, data: Any = None, **more: Any) -> str:
        """Post an event; its id."""
        answer = await self.http.post(
            f"{self.engine.url}/e/test", json={"name": name, "data": data or {}} | more
        )
        return answer.json()["ids"][0]

    async def get(self, path: str) -> Any:
        """The data of a GET."""
        return (await self.http.get(f"{self.engine.url}{path}")).json()["data"]

    async def runs(self, event_id: str) -> list[dict[str, Any]]:
        """The runs of an event."""
        return await self.get(f"/v1/events/{event_id}/runs")

    async def ended(self, event_id: str) -> dict[str, Any]:
        """The event's run, when it has ended."""

        async def check() -> Any:
            runs = await self.runs(event_id)
            return runs[0] if runs and runs[0]["ended_at"] else None

        return await until(check, f"the end of the run of event {event_id}")

    async def result(self, name: str, data: Any = None) -> Any:
        """Send an event and wait for its run: the output, which must not be a failure."""
        run = await self.ended(await self.send(name, data))
        assert run["status"] == "Completed", run
        return run["output"]
