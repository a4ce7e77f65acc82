"""An app with a loop, a talk and a slow step, and a way to serve it as users do."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from flowctl import App, MemoryStorage, ServerConfig, StepContext, create_step, create_workflow
from tests.conftest import served


class Counter(BaseModel):
    value: int


async def increment(ctx: StepContext[Counter]) -> Counter:
    return Counter(value=ctx.input_data.value + 1)


async def ask(ctx: StepContext[Counter, dict[str, int]]) -> Counter:
    if ctx.resume_data is None:
        await ctx.suspend({"ask": "how much?"})
    return Counter(value=ctx.input_data.value + ctx.resume_data["add"])


async def wait(ctx: StepContext[Counter]) -> Counter:
    await asyncio.wait_for(ctx.abort_signal.wait(), 60)
    return ctx.input_data


def make_app(**options: Any) -> App:
    step = create_step(id="increment", input_schema=Counter, output_schema=Counter, execute=increment)
    asking = create_step(
        id="ask",
        input_schema=Counter,
        output_schema=Counter,
        resume_schema=dict[str, int],
        execute=ask,
        description="Asks how much to add",
    )
    waiting = create_step(id="wait", input_schema=Counter, output_schema=Counter, execute=wait)
    loop = create_workflow(id="counter", input_schema=Counter, output_schema=Counter)
    loop.dountil(step, lambda ctx: ctx.input_data.value >= 10).commit()
    talk = create_workflow(id="talk", input_schema=Counter, output_schema=Counter).then(asking).commit()
    slow = create_workflow(id="slow", input_schema=Counter, output_schema=Counter).then(waiting).commit()
    return App(workflows=[loop, talk, slow], storage=MemoryStorage(), **options)


@pytest.fixture
async def serve_app() -> AsyncIterator[Callable[..., Any]]:
    """Serves an app, or any ASGI application, on a free port and answers its URL."""
    async with AsyncExitStack() as stack:

        async def serve(asgi: Any) -> str:
            listener = socket.socket()
            listener.bind(("127.0.0.1", 0))
            if isinstance(asgi, App):
                stack.push_async_callback(asgi.stop)
                asgi = asgi.asgi
            await stack.enter_async_context(served(asgi, listener))
            return f"http://127.0.0.1:{listener.getsockname()[1]}"

        yield serve


@pytest.fixture
async def http(serve_app) -> AsyncIterator[httpx.AsyncClient]:
    """A bare client of a served app."""
    url = await serve_app(make_app(server=ServerConfig()))
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        yield client
