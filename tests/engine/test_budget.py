"""Bytes that are sent to apps: bounded together, in turn, whatever their number."""

from __future__ import annotations

import asyncio

import pytest
from engine_world import until
from hypothesis import given
from hypothesis import strategies as st
from plain_app import Asked, ended, plain_app
from starlette.responses import Response

from flowctl.engine.budget import SMALL, ByteBudget

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


async def _is(truth: bool) -> bool:
    return truth
