"""Invocations that end while others are under way: the requests that their ends make take turns."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import inngest
import pytest

from flowctl import MemoryStorage, StepContext, create_step, create_workflow
from flowctl.legs import LegLimits
from tests.runners.front import Served, on_engine

MANY = [inngest.Concurrency(limit=10)]
ran: Counter[Any] = Counter()


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


def step(id: str, execute: Any = None) -> Any:
    async def body(ctx: StepContext[Any]) -> Any:
        ran[id, ctx.input_data] += 1
        return await execute(ctx) if execute else ctx.input_data

    return create_step(id=id, execute=body)


def inner(*steps: Any) -> Any:
    workflow = create_workflow(id="inner", concurrency=MANY)
    for each in steps:
        workflow = workflow.then(each)
    return workflow.commit()


async def test_the_next_item_begins_as_soon_as_one_ends():
    others = asyncio.Event()

    async def work(ctx: StepContext[Any]) -> Any:
        if ctx.input_data == 0:
            await others.wait()
        if ctx.input_data == 5:
            others.set()
        return ctx.input_data

    workflow = create_workflow(id="w").foreach(inner(step("a", work)), concurrency=2).commit()
    async with on_engine(workflows=[workflow]) as served, asyncio.timeout(30):
        assert (await served.start("w", list(range(6)))).result == list(range(6))
        assert ran == {("a", n): 1 for n in range(6)}


async def test_never_more_items_are_under_way_than_are_to_be():
    at_work, most, three = 0, 0, asyncio.Barrier(3)

    async def work(ctx: StepContext[Any]) -> Any:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        if ctx.input_data < 3:
            await three.wait()
        await asyncio.sleep(0.002 * (ctx.input_data * 7 % 5))
        at_work -= 1
        return ctx.input_data

    chain = create_workflow(id="chain").then(inner(step("a", work))).then(step("b")).commit()
    workflow = create_workflow(id="w").foreach(chain, concurrency=3).commit()
    async with on_engine(workflows=[workflow], leg_limits=LegLimits(steps=40)) as served, asyncio.timeout(60):
        result = await served.start("w", list(range(20)))
        assert (result.status, result.result, most) == ("success", list(range(20)), 3)
        assert (len(ran), set(ran.values())) == (40, {1})


async def test_an_arm_that_sleeps_goes_on_at_its_time_while_another_is_invoked():
    woken = asyncio.Event()

    async def wait(ctx: StepContext[Any]) -> Any:
        await woken.wait()
        return ctx.input_data

    async def wake(_: StepContext[Any]) -> Any:
        woken.set()

    chain = create_workflow(id="chain").sleep(20).then(step("wake", wake)).commit()
    workflow = create_workflow(id="w").parallel([inner(step("a", wait)), chain]).commit()
    async with on_engine(workflows=[workflow]) as served, asyncio.timeout(30):
        assert (await served.start("w", 1)).result == {"inner": 1, "chain": None}
        assert set(ran.values()) == {1}


async def beside(served: Served, body: dict[str, Any], request: str) -> list[Any]:
    """What an engine is asked for that makes another request while the one of this body is under way."""
    body = {**body, "ctx": {**body["ctx"], "qi_id": request, "request_id": request}}
    answer = await served.front.http.post(f"{served.url}?fnId=test-workflow.w&stepId=step", json=body)
    assert answer.status_code == 206, answer.text
    return sorted((op["op"], op["displayName"].partition(".")[0]) for op in answer.json())


async def test_a_request_beside_the_one_that_acts_runs_nothing_and_comes_again():
    begun, go_on, last = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work(ctx: StepContext[Any]) -> Any:
        if ctx.input_data == 1:
            await last.wait()
        return ctx.input_data

    async def wait(ctx: StepContext[Any]) -> Any:
        begun.set()
        await go_on.wait()
        return ctx.input_data

    chain = create_workflow(id="chain").then(inner(step("a", work))).then(step("b", wait)).commit()
    workflow = create_workflow(id="w").foreach(chain, concurrency=2).commit()
    async with on_engine(workflows=[workflow]) as served, asyncio.timeout(30):
        run = asyncio.create_task(served.start("w", [0, 1]))
        await begun.wait()
        acting = next(body for body in reversed(served.bodies) if "part" not in body["event"]["data"])
        again = [("Sleep", "turn")]
        assert await beside(served, acting, "another") == again
        assert (await served.app.storage.get_run("w", acting["event"]["data"]["runId"])).status == "running"
        go_on.set()
        while not [name for name in served.front.posted if name == "turn.2"]:  # noqa: ASYNC110 - a list tells nobody
            await asyncio.sleep(0.01)
        assert await beside(served, acting, "another, sent before that mark") == again
        last.set()
        assert (await run).result == [0, 1]
        assert set(ran.values()) == {1}


@pytest.mark.parametrize("status", [409, 503])
async def test_a_request_that_is_given_up_in_its_turn_has_it_when_it_is_made_again(status: int):
    nested = inner(step("a"))
    chain = create_workflow(id="chain").then(nested).then(step("b")).commit()
    workflow = create_workflow(id="w").foreach(chain, concurrency=2).commit()
    async with on_engine(workflows=[workflow]) as served, asyncio.timeout(60):
        refusals = iter([status] * (1 if status == 409 else 6))

        def refuse(path: str) -> int | None:
            is_later = path.startswith("/v1/checkpoint") and "turn.1" in served.front.posted
            return next(refusals, None) if is_later and ran["b", 0] + ran["b", 1] else None

        served.front.refuse = refuse
        assert (await served.start("w", [0, 1, 2])).result == [0, 1, 2]
        assert (next(refusals, "used"), set(ran.values())) == ("used", {1})


async def test_a_request_that_dies_before_it_passes_its_turn_on_does_so_when_it_is_made_again():
    died: list[Any] = []

    class Dying(MemoryStorage):
        async def pass_turn(self, turn: Any, *, passed: int) -> None:
            if not died and "2.inner-last.start" in served.front.posted:
                died.append(passed)
                raise ConnectionError
            await super().pass_turn(turn, passed=passed)

    last = create_workflow(id="inner-last", concurrency=MANY).then(step("b")).commit()
    workflow = create_workflow(id="w").foreach(inner(step("a")), concurrency=2)
    workflow.map(lambda ctx: sum(ctx.input_data), id="sum").then(last).commit()
    async with on_engine(workflows=[workflow], storage=Dying()) as served, asyncio.timeout(60):
        assert (await served.start("w", [0, 1, 2])).result == 3
        assert (len(died), set(ran.values())) == (1, {1})
