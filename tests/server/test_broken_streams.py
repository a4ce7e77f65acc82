"""Streams of the Python client whose connection is cut, for real, by a proxy in between."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest

from flowctl import App, MemoryStorage, StepContext, create_step, create_workflow
from flowctl.client import Client, ServerUnreachableError, connection
from tests.server.conftest import make_app

STEPS = 6
RAN = ["workflow-step-start", "workflow-step-result"]


@dataclass
class Proxy:
    """Passes bytes on to a server; `cut` breaks what is open, `refuses` says that nobody is there."""

    url: str
    refuses: bool = False
    accepted: int = 0
    open: set[asyncio.StreamWriter] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self.refuses:
            writer.transport.abort()
            return
        there = urlsplit(self.url)
        back, onward = await asyncio.open_connection(there.hostname, there.port)
        self.open |= {writer, onward}
        await asyncio.gather(_pass(reader, onward), _pass(back, writer))

    def cut(self) -> None:
        for writer in self.open:
            writer.transport.abort()
        self.open.clear()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


@asynccontextmanager
async def proxied(url: str) -> AsyncIterator[tuple[Proxy, Client]]:
    listener, proxy = socket.create_server(("127.0.0.1", 0)), Proxy(url)
    server = await asyncio.start_server(proxy.serve, sock=listener)
    async with Client(f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
        yield proxy, client
    proxy.cut()
    server.close()


async def drained(events: AsyncIterator[object]) -> None:
    async for _ in events:
        pass


def gated() -> tuple[App, asyncio.Event]:
    """A workflow whose third step waits for an event."""
    gate, bodies = asyncio.Event(), []

    async def body(ctx: StepContext) -> int:
        bodies.append(ctx.run_id)
        if len(bodies) == 3:
            await asyncio.wait_for(gate.wait(), 60)
        return len(bodies)

    workflow = create_workflow(id="steps")
    for n in range(STEPS):
        workflow.then(create_step(id=f"s{n}", execute=body))
    return App(workflows=[workflow.commit()], storage=MemoryStorage()), gate


async def test_a_stream_that_is_cut_goes_on_where_it_was_and_begins_nothing_again(serve_app) -> None:
    app, gate = gated()
    async with proxied(await serve_app(app)) as (proxy, client):
        types: list[str] = []
        async for event in client.stream("steps", {}):
            types.append(event.type)
            if len(types) == 6:
                proxy.cut()
                gate.set()
        listed = await client.list_runs("steps")
    assert types == ["workflow-start", *RAN * STEPS, "workflow-finish"]
    assert (listed.total, listed.runs[0].steps["s5"].output, proxy.accepted >= 2) == (1, STEPS, True)


async def test_a_stream_that_is_cut_after_its_last_event_ends(serve_app) -> None:
    async with proxied(await serve_app(make_app())) as (proxy, client):
        types = []
        async for event in client.stream("counter", {"value": 9}):
            types.append(event.type)
            proxy.cut()
    assert types == ["workflow-start", *RAN, "workflow-finish"]


async def test_a_suspended_run_ends_its_streams_also_when_they_were_cut(serve_app) -> None:
    async with proxied(await serve_app(make_app())) as (proxy, client):
        types = []
        async for event in client.stream("talk", {"value": 1}, run_id="r"):
            types.append(event.type)
            proxy.cut()
        async for event in client.resume_stream("talk", "r", step="ask", resume_data={"add": 1}):
            types.append(event.type)
            proxy.cut()
    begun, suspended = (
        ["workflow-start", "workflow-step-start"],
        ["workflow-step-suspended", "workflow-finish"],
    )
    assert types == [*begun, *suspended, *begun, "workflow-step-result", "workflow-finish"]


async def test_a_stream_outlives_its_server(serve_app) -> None:
    app, gate = gated()
    url = await serve_app(app)
    async with Client(url) as client:
        types: list[str] = []
        async for event in client.stream("steps", {}):
            types.append(event.type)
            if len(types) == 6:
                app.drain()  # as a server does that is told to stop
                app.asgi.state.streams.reopen()
                gate.set()
    assert types == ["workflow-start", *RAN * STEPS, "workflow-finish"]


async def test_a_server_that_does_not_come_back_is_an_error(serve_app, monkeypatch) -> None:
    monkeypatch.setattr(connection, "TAKE_UP_SECONDS", 0.3)
    async with proxied(await serve_app(make_app())) as (proxy, client):
        events = client.stream("slow", {"value": 1}, run_id="r")
        await anext(events)
        proxy.refuses = True
        proxy.cut()
        with pytest.raises(ServerUnreachableError):
            await drained(events)
        proxy.refuses = False
        assert (await client.get_run("slow", "r")).status == "running"
        await client.cancel("slow", "r")


async def test_a_stream_whose_beginning_is_not_certain_is_not_begun_twice(serve_app) -> None:
    async with proxied(await serve_app(make_app())) as (proxy, client):
        proxy.refuses = True
        with pytest.raises(ServerUnreachableError):
            await drained(client.stream("counter", {"value": 9}))
    assert proxy.accepted == 1
