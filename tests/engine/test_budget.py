"""Bytes in memory, of requests and answers: bounded together, in turn, whatever their number."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import pytest
from engine_world import until
from hypothesis import given
from hypothesis import strategies as st
from plain_app import Asked, ended, plain_app
from starlette.responses import JSONResponse, Response

from flowctl.engine import Engine, EngineConfig, answers, api
from flowctl.engine.budget import SMALL, ByteBudget
from flowctl.engine.transport import Transport

LARGE = 2 * SMALL
sizes = st.lists(st.integers(0, 5 * SMALL), min_size=1, max_size=20)


@given(sizes, st.integers(LARGE, 4 * SMALL))
def test_leases_never_hold_more_than_the_bound_unless_one_alone_does(sizes, bound):
    budget = ByteBudget(bound)

    async def use(size: int) -> None:
        with budget.lease() as lease:
            if not lease.resize(size):
                await lease.wait(size)
            assert budget.held <= max(bound, *sizes, 0)
            await asyncio.sleep(0)

    async def use_all() -> None:
        async with asyncio.timeout(5):
            await asyncio.gather(*map(use, sizes))

    asyncio.run(use_all())
    assert budget.held == 0


async def test_who_comes_first_is_let_in_first_and_who_gives_up_waiting_holds_nobody_up():
    budget, entered = ByteBudget(2 * LARGE), list[str]()

    async def enter(name: str, size: int) -> None:
        with budget.lease() as lease:
            await lease.wait(size)
            entered.append(name)

    with budget.lease() as held:
        assert held.resize(LARGE)
        waiting = [
            asyncio.create_task(enter(*who)) for who in (("a", 2 * LARGE), ("b", 2 * LARGE), ("c", LARGE))
        ]
        await asyncio.sleep(0)
        with budget.lease() as late:
            assert not late.resize(LARGE)
            assert late.resize(SMALL - 1)
        waiting[0].cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert (entered, budget.held) == (["b", "c"], 0)


@pytest.fixture
async def app():
    async with plain_app() as app:
        app.engine._executor.budget.bound = 7 * SMALL // 2
        yield app


async def test_calls_with_large_events_wait_for_each_other_and_small_ones_do_not(app):
    inside, most, gate = set[str](), 0, asyncio.Event()

    async def handler(asked: Asked) -> Response:
        nonlocal most
        text = asked.body["event"]["data"].get("text", "")
        if text:
            inside.add(asked.ctx["run_id"])
            most = max(most, len(inside))
            await gate.wait()
            inside.remove(asked.ctx["run_id"])
        return ended(len(text))

    await app.begin(handler)
    await app.ended()
    for _ in range(7):
        await app.send({"text": "x" * SMALL})
    await until(lambda: _is(len(inside) >= 3), "three calls")
    await app.send({})
    assert (await app.ended())["output"] == 0
    gate.set()
    await until(lambda: _is(app.engine._executor.ledger.tally.runs_ended["Completed"] == 9), "all runs")
    assert (most, app.engine._executor.budget.held) == (3, 0)


async def test_large_fetches_wait_for_each_other(app):
    inside, most, gate = 0, 0, asyncio.Event()

    async def place(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal inside, most
        await reader.readuntil(b"\r\n\r\n")
        inside += 1
        most = max(most, inside)
        await gate.wait()
        inside -= 1
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    async def handler(asked: Asked) -> Response:
        if asked.steps:
            return ended()
        opts = {"url": f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", "body": "x" * SMALL}
        return JSONResponse([{"op": "Gateway", "id": "f", "opts": opts}], 206)

    async with await asyncio.start_server(place, "127.0.0.1", 0) as server:
        await app.begin(handler)
        for _ in range(6):
            await app.send({})
        await until(lambda: _is(inside >= 3), "three fetches")
        gate.set()
        await until(lambda: _is(app.engine._executor.ledger.tally.runs_ended["Completed"] == 7), "all runs")
    assert (most, app.engine._executor.budget.held) == (3, 0)


async def _is(truth: bool) -> bool:
    return truth


async def test_large_answers_wait_in_their_sockets_for_each_other_and_come_whole():
    gate, size, transport = asyncio.Event(), 8 * SMALL, Transport(answers_bytes=20 * SMALL)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + bytes(size // 2))
            await gate.wait()
            writer.write(bytes(size // 2))
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server, asyncio.timeout(10):
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        for _ in range(2):  # the second time over connections whose reading had been paused
            gate.clear()
            calls = [asyncio.create_task(transport.request("POST", url, headers={})) for _ in range(5)]
            await until(lambda: _is(transport.answers.held == 2 * size and transport.answers.is_waited_for))
            gate.set()
            assert {len((await call).body) for call in calls} == {size}
        assert transport.answers.held == 0
        await transport.close()


@asynccontextmanager
async def half_sent(engine: Engine, size: int) -> AsyncIterator[asyncio.StreamReader]:
    """A request of which one half has been sent, and what is answered to it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(engine.url.rsplit(":", 1)[1]))
    try:
        head = b"POST /e/k HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: %d\r\n\r\n" % size
        writer.write(head + b" " * (size // 2))
        yield reader
    finally:
        writer.close()


async def test_large_bodies_that_find_no_room_are_refused_and_small_ones_go_on(monkeypatch):
    monkeypatch.setattr(api, "BODIES_BYTES", 2 * LARGE)
    monkeypatch.setattr(answers, "ROOM_SECONDS", 0.05)
    large = {"name": "t/one", "data": {"text": "x" * LARGE}}
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(Engine(EngineConfig(port=0)))
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=engine.url))
        async with half_sent(engine, 2 * LARGE):
            await until(lambda: _refused(http, large), "a refusal")
            assert (await http.post("/e/k", json={"name": "t/one"})).status_code == 200
        await until(lambda: _accepted(http, large), "room")


async def test_a_body_that_takes_too_long_gives_its_room_back(monkeypatch):
    monkeypatch.setattr(answers, "READ_SECONDS", 0.05)
    async with Engine(EngineConfig(port=0)) as engine, half_sent(engine, LARGE) as reader:
        assert (await reader.readline()).startswith(b"HTTP/1.1 408")


async def _refused(http: httpx.AsyncClient, event: dict[str, object]) -> bool:
    answer = await http.post("/e/k", json=event)
    return (answer.status_code, answer.headers.get("retry-after")) == (503, "2")


async def _accepted(http: httpx.AsyncClient, event: dict[str, object]) -> bool:
    return (await http.post("/e/k", json=event)).status_code == 200
