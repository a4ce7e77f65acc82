"""Shared fixtures: apps for the workflows that a test defines, on either engine."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import uvicorn

from flowctl import App, Workflow
from flowctl.clock import SystemClock
from flowctl.testing import TestApp
from tests.node_program import NodeProgram, node_program
from tests.postgres_server import postgres_server


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


@pytest.fixture(params=["local", "inngest"])
async def register(request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """Register workflows with an app, kept in memory; every test that uses it runs on both engines."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(*workflows: Workflow[Any, Any]) -> App:
            app = TestApp(workflows=workflows, engine=request.param, clock=SystemClock())
            return await stack.enter_async_context(app)

        yield make


@pytest.fixture
async def node() -> AsyncIterator[Callable[..., Awaitable[NodeProgram]]]:
    """Start programs of `tests/node`: `await node("hello.mjs", NAME="value")`; they end with the test."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(name: str, **env: str) -> NodeProgram:
            return await stack.enter_async_context(node_program(name, env))

        yield start


@pytest.fixture(scope="session")
def postgres_dsn() -> Iterator[str]:
    """The connection string of a PostgreSQL server of this session."""
    with postgres_server() as dsn:
        yield dsn
