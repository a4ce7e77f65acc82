"""Plain Inngest functions in a test: the embedded engine has the test's clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import inngest
import pytest

from flowctl import App, SQLiteStorage, create_workflow
from flowctl.testing import TestApp, TestClock

START = datetime(2030, 1, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
Handler = Callable[[inngest.Context], Any]


@asynccontextmanager
async def served(handler: Handler, clock: TestClock, **options: Any) -> AsyncIterator[inngest.Inngest]:
    client = inngest.Inngest(app_id="plain", is_production=False)
    options = {"trigger": inngest.TriggerEvent(event="go")} | options
    function = client.create_function(fn_id="f", **options)(handler)
    app = App(functions=[function], inngest=client, storage=SQLiteStorage(":memory:"))
    async with TestApp(app, engine="inngest", clock=clock) as test:
        assert test.inngest is not None
        yield test.inngest


async def settled(clock: TestClock, by: timedelta = timedelta(0)) -> None:
    await asyncio.wait_for(clock.advance(by), 60)


async def test_sleeps_of_a_function_take_no_time() -> None:
    clock, at = TestClock(START), list[timedelta]()

    async def nap(ctx: inngest.Context) -> None:
        await ctx.step.sleep("a week", 7 * DAY)
        await ctx.step.sleep("an hour", 3_600_000)
        await ctx.step.sleep_until("a date", START + 10 * DAY)
        at.append(clock.elapsed)

    async with served(nap, clock) as client:
        await client.send(inngest.Event(name="go"))
        await settled(clock)
    assert (at, clock.elapsed) == ([10 * DAY], 10 * DAY)


async def test_back_off_of_a_function_takes_no_time() -> None:
    clock, tries = TestClock(), list[timedelta]()

    async def flaky(ctx: inngest.Context) -> None:
        tries.append(clock.elapsed)
        raise RuntimeError("not yet")

    async with served(flaky, clock, retries=4) as client:
        await client.send(inngest.Event(name="go"))
        await settled(clock)
    assert len(tries) == 5
    assert tries == sorted(set(tries))
    assert tries[0] == timedelta(0)


async def test_a_debounce_takes_no_time() -> None:
    clock, seen = TestClock(), list[Any]()

    async def last(ctx: inngest.Context) -> None:
        seen.append((ctx.event.data["n"], clock.elapsed))

    async with served(last, clock, debounce=inngest.Debounce(period=HOUR)) as client:
        await client.send([inngest.Event(name="go", data={"n": n}) for n in range(3)])
        await settled(clock)
    assert seen == [(2, HOUR)]


async def test_a_throttle_takes_no_time() -> None:
    clock, seen = TestClock(), list[Any]()

    async def slow(ctx: inngest.Context) -> None:
        seen.append((ctx.event.data["n"], clock.elapsed))

    async with served(slow, clock, throttle=inngest.Throttle(limit=1, period=HOUR, burst=0)) as client:
        await client.send([inngest.Event(name="go", data={"n": n}) for n in range(3)])
        await settled(clock)
    assert seen == [(0, 0 * HOUR), (1, HOUR), (2, 2 * HOUR)]
    assert clock.elapsed == 2 * HOUR


async def test_schedules_come_as_time_is_advanced() -> None:
    clock, at = TestClock(START), list[timedelta]()

    async def tick(ctx: inngest.Context) -> None:
        at.append(clock.elapsed)

    async with served(tick, clock, trigger=inngest.TriggerCron(cron="0 6,18 * * *")):
        await settled(clock)
        assert at == []
        await settled(clock, 2 * DAY)
    assert at == [6 * HOUR, 18 * HOUR, 30 * HOUR, 42 * HOUR]
    assert clock.elapsed == 2 * DAY


@pytest.mark.parametrize(("answer_after", "expected"), [(HOUR, "yes"), (2 * DAY, None)])
async def test_a_wait_for_an_event_is_over_once_time_is_advanced(
    answer_after: timedelta, expected: str | None
) -> None:
    clock, got = TestClock(), list[Any]()

    async def ask(ctx: inngest.Context) -> None:
        event = await ctx.step.wait_for_event("answer", event="answered", timeout=DAY)
        got.append((event and event.data["text"], clock.elapsed))

    async with served(ask, clock) as client:
        await client.send(inngest.Event(name="go"))
        await settled(clock, answer_after)
        await client.send(inngest.Event(name="answered", data={"text": "yes"}))
        await settled(clock)
    assert got == [(expected, min(answer_after, DAY))]


async def test_sleeps_of_runs_that_overlap_end_in_their_order() -> None:
    clock, woken = TestClock(), list[int]()

    async def nap(ctx: inngest.Context) -> None:
        days = int(str(ctx.event.data["days"]))
        await ctx.step.sleep("nap", days * DAY)
        woken.append(days)

    async with served(nap, clock) as client:
        await client.send([inngest.Event(name="go", data={"days": days}) for days in (9, 1, 5, 3)])
        await settled(clock)
    assert (woken, clock.elapsed) == ([1, 3, 5, 9], 9 * DAY)


async def test_a_function_that_waits_for_a_run_that_sleeps_is_not_stuck() -> None:
    clock = TestClock()
    sleeper = create_workflow(id="sleeper").sleep(DAY).commit()
    caller = create_workflow(id="caller")

    async def call(ctx: Any) -> str:
        return (await (await sleeper.create_run()).start(None)).status

    caller.map(call).commit()
    async with TestApp(workflows=[sleeper, caller], engine="inngest", clock=clock):
        result = await asyncio.wait_for((await caller.create_run()).start(None), 60)
    assert (result.raw_result, clock.elapsed) == ("success", DAY)
