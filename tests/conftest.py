"""Shared fixtures: apps for the workflows that a test defines, on either engine."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import inngest
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route

from flowctl import App, SQLiteStorage, Workflow, serve
from flowctl.engine import Engine, EngineConfig
from tests.node_program import NodeProgram, node_program


@contextlib.asynccontextmanager
async def served(asgi: Any, listener: socket.socket) -> AsyncIterator[None]:
    """Serve an ASGI application on a bound socket, in this loop."""
    server = uvicorn.Server(
        uvicorn.Config(asgi, log_level="error", lifespan="off", timeout_graceful_shutdown=1)
    )
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
    task = asyncio.create_task(server.serve([listener]))
    while not server.started:  # noqa: ASYNC110 - uvicorn tells by a flag only
        await asyncio.sleep(0.001)
    yield
    server.should_exit = True
    await task


class OnInngest:
    """Apps whose workflows run on an embedded engine of their own."""

    def __init__(self, stack: contextlib.AsyncExitStack) -> None:
        self.stack = stack

    async def start(self, app: App) -> App:
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/api/inngest"
        engine = await self.stack.enter_async_context(Engine(EngineConfig(port=0)))
        app.inngest = inngest.Inngest(
            app_id="test", is_production=False, api_base_url=engine.url, event_api_base_url=engine.url
        )
        self.stack.push_async_callback(app.inngest._http_client._http_client.aclose)
        web = Starlette(routes=[Route("/api/inngest", serve(app), methods=["GET", "POST", "PUT"])])
        await self.stack.enter_async_context(served(web, listener))
        answer = await engine.transport.request("PUT", url, headers={"x-inngest-server-kind": "dev"})
        assert answer.status == 200, answer
        return app


@pytest.fixture(params=["local", "inngest"])
async def register(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """Register workflows with an app, kept in memory; every test that uses it runs on both engines."""
    apps: list[App] = []
    async with contextlib.AsyncExitStack() as stack:

        async def make(*workflows: Workflow[Any, Any]) -> App:
            app = App(workflows=list(workflows), storage=SQLiteStorage(":memory:"), engine=request.param)
            apps.append(app)
            return app if request.param == "local" else await OnInngest(stack).start(app)

        yield make
        for app in apps:
            await app.stop()


@pytest.fixture
async def node() -> AsyncIterator[Callable[..., Awaitable[NodeProgram]]]:
    """Start programs of `tests/node`: `await node("hello.mjs", NAME="value")`; they end with the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(name: str, **env: str) -> NodeProgram:
            return await stack.enter_async_context(node_program(name, env))

        yield start
