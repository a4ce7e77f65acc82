"""Shared fixtures: apps for the workflows that a test defines, on either engine."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from hypothesis import HealthCheck, settings

from flowctl import App, Workflow
from flowctl.clock import SystemClock
from flowctl.testing import TestApp
from tests.node_program import NodeProgram, node_program
from tests.postgres_server import postgres_server
from tests.storage.databases import DATABASES, Database

ENGINES = ["local", "inngest"]

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")  # a busy machine is no fault of what is tested


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--storage", choices=DATABASES, help="where tests of workflows keep runs (default: memory)"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "every_storage: run with runs kept in memory, in a file and in PostgreSQL"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what uses `register` on both engines, and on the storages that are asked for."""
    if "register" in metafunc.fixturenames:
        every = metafunc.definition.get_closest_marker("every_storage") is not None
        chosen = metafunc.config.getoption("storage")
        storages = [chosen] if chosen else DATABASES if every else ["memory"]
        pairs = [(engine, storage) for storage in storages for engine in ENGINES]
        ids = [engine if storage == "memory" else f"{engine}-{storage}" for engine, storage in pairs]
        metafunc.parametrize("register", pairs, ids=ids, indirect=True)


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


@pytest.fixture
async def register(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    """Register workflows with an app of the test's engine and storage; options are those of TestApp."""
    engine, kind = request.param
    dsn = request.getfixturevalue("postgres_dsn") if kind == "postgres" else ""
    async with contextlib.AsyncExitStack() as stack:
        database = await stack.enter_async_context(contextlib.aclosing(Database(kind, tmp_path, dsn)))

        async def make(*workflows: Workflow[Any, Any], **options: Any) -> App:
            given = {"clock": SystemClock(), "storage": database.storage()} | options
            return await stack.enter_async_context(TestApp(workflows=workflows, engine=engine, **given))

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
