"""Steps on Inngest run in line, in one request, and are reported to the engine one by one."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from flowctl import StepContext, create_step, create_workflow
from flowctl.legs import LegLimits
from tests.runners.front import on_engine

ran: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


def step(id: str, execute: Any = None) -> Any:
    async def body(ctx: StepContext[Any]) -> Any:
        ran[id] += 1
        return await execute(ctx) if execute else ctx.input_data

    return create_step(id=id, execute=body)


async def plus_one(ctx: StepContext[Any]) -> Any:
    return ctx.input_data + 1


def counting() -> Any:
    workflow = create_workflow(id="counting")
    return workflow.dountil(step("increment", plus_one), lambda ctx: ctx.input_data >= 10).commit()


async def test_counting_from_5_to_10_takes_one_request_and_one_post_a_step():
    async with on_engine(workflows=[counting()]) as served:
        result = await served.start("counting", 5)
        posted = [name for name in served.front.posted if "increment" in name]
        assert (result.result, len(served.requests), len(served.front.posts)) == (10, 1, 5)
        assert posted == [f"0.increment.iter.{n}" for n in range(1, 6)]


async def test_a_step_is_reported_before_the_next_one_begins():
    posts: list[Any] = []
    seen: list[int] = []

    async def look(ctx: StepContext[Any]) -> None:
        seen.append(len(posts[0]))

    workflow = create_workflow(id="w").then(step("a", look)).then(step("b", look)).then(step("c", look))
    async with on_engine(workflows=[workflow]) as served:
        posts.append(served.front.posts)
        await served.start("w")
        assert seen == [0, 1, 2]


async def test_an_engine_without_checkpoints_gets_a_request_for_each_step_and_is_not_asked_again():
    async with on_engine(workflows=[counting()]) as served:
        served.front.refuse = lambda path: 404 if path.startswith("/v1/checkpoint") else None
        assert (await served.start("counting", 8)).result == 10
        assert (await served.start("counting", 8)).result == 10
        assert ran["increment"] == 4
        assert len(served.front.posts) == 1


async def test_a_step_whose_report_is_not_taken_is_in_the_reply_and_runs_once():
    async with on_engine(workflows=[counting()]) as served:
        refusals = iter([500, 500, 500])
        served.front.refuse = lambda path: next(refusals, None) if path.startswith("/v1/checkpoint") else None
        assert (await served.start("counting", 5)).result == 10
        assert ran["increment"] == 5
        assert len(served.requests) == 2


async def test_a_request_that_was_given_up_ends_and_the_next_one_runs_nothing_again():
    async with on_engine(workflows=[counting()]) as served:
        refusals = iter([None, 409])
        served.front.refuse = lambda path: next(refusals, None) if path.startswith("/v1/checkpoint") else None
        assert (await served.start("counting", 5)).result == 10
        assert ran["increment"] == 5
        assert len(served.requests) == 2


async def test_parallel_steps_run_at_the_same_time_in_one_request():
    barrier = asyncio.Barrier(3)

    async def meet(ctx: StepContext[Any]) -> str:
        async with asyncio.timeout(10):
            await barrier.wait()
        return "met"

    workflow = create_workflow(id="w").parallel([step(id, meet) for id in "abc"]).commit()
    async with on_engine(workflows=[workflow]) as served:
        assert (await served.start("w")).result == dict.fromkeys("abc", "met")
        assert len(served.requests) == 1


async def test_arms_that_sleep_park_together_while_the_others_go_on():
    def arm(id: str, ms: int) -> Any:
        workflow = create_workflow(id=id).then(step(f"{id}-before")).sleep(ms).then(step(f"{id}-after"))
        return workflow.commit()

    steps = create_workflow(id="busy").then(step("one")).then(step("two")).then(step("three")).commit()
    workflow = create_workflow(id="w").parallel([arm("short", 60), arm("long", 120), steps]).commit()
    async with on_engine(workflows=[workflow]) as served:
        result = await served.start("w", 1)
        assert result.status == "success"
        assert set(ran.values()) == {1}
        posts = served.front.posts
        first = [p["steps"] for p in posts if p["request_id"] == posts[0]["request_id"]]
        names = {step["name"].rpartition(".")[2] for steps in first for step in steps}
        assert {"one", "two", "three", "short-before", "long-before"} <= names


async def test_an_arm_sleeps_in_the_request_while_another_one_is_at_work():
    woken = asyncio.Event()

    async def wait(ctx: StepContext[Any]) -> None:
        async with asyncio.timeout(20):
            await woken.wait()

    async def wake(ctx: StepContext[Any]) -> None:
        woken.set()

    nap = create_workflow(id="nap").sleep(20).then(step("wake", wake)).commit()
    workflow = create_workflow(id="w").parallel([nap, step("wait", wait)]).commit()
    async with on_engine(workflows=[workflow]) as served:
        assert (await served.start("w")).status == "success"
        assert len(served.requests) == 1


async def test_of_arms_that_all_sleep_the_engine_is_asked_to_wake_the_first():
    def arm(id: str, ms: int) -> Any:
        return create_workflow(id=id).sleep(ms).then(step(f"{id}-after")).commit()

    workflow = create_workflow(id="w").parallel([arm("late", 300), arm("soon", 50), arm("last", 600)])
    async with on_engine(workflows=[workflow.commit()]) as served:
        assert (await served.start("w", 1)).status == "success"
        assert list(ran) == ["soon-after", "late-after", "last-after"]
        assert len(served.requests) == 4


async def test_arms_whose_request_has_lasted_long_enough_go_on_in_the_next_one():
    workflow = create_workflow(id="w").parallel([step(id, plus_one) for id in "abc"]).then(step("end"))
    async with on_engine(workflows=[workflow.commit()], leg_limits=LegLimits(seconds=0)) as served:
        assert (await served.start("w", 1)).result == {"a": 2, "b": 2, "c": 2}
        assert set(ran.values()) == {1}
        assert {query.partition("stepId=")[2] for query in served.requests} == {"step"}


async def test_a_foreach_keeps_its_window_in_one_request():
    active, most = 0, 0

    async def work(ctx: StepContext[Any]) -> int:
        nonlocal active, most
        active += 1
        most = max(most, active)
        await asyncio.sleep(0.005)
        active -= 1
        return ctx.input_data * 2

    workflow = create_workflow(id="w").foreach(step("work", work), concurrency=3).commit()
    async with on_engine(workflows=[workflow]) as served:
        assert (await served.start("w", list(range(12)))).result == [n * 2 for n in range(12)]
        assert (most, ran["work"], len(served.requests)) == (3, 12, 1)


async def test_items_that_wait_for_a_retry_park_and_the_window_moves_on():
    async def fail_once(ctx: StepContext[Any]) -> int:
        if ctx.retry_count == 0 and ctx.input_data % 2:
            raise ValueError("odd")
        return ctx.input_data

    flaky = create_step(id="flaky", retries=1, execute=fail_once)
    workflow = create_workflow(id="w", retry_config={"attempts": 0, "delay": 20})
    async with on_engine(workflows=[workflow.foreach(flaky, concurrency=4).commit()]) as served:
        assert (await served.start("w", list(range(8)))).result == list(range(8))


async def test_a_request_that_has_lasted_long_enough_is_answered_between_two_steps():
    async with on_engine(workflows=[counting()], leg_limits=LegLimits(seconds=0)) as served:
        assert (await served.start("counting", 7)).result == 10
        assert ran["increment"] == 3
        assert len(served.requests) > 3


async def test_a_middleware_that_changes_what_steps_give_is_applied_by_the_sdk_itself():
    import inngest

    class Marks(inngest.Middleware):
        async def transform_output(self, result: inngest.TransformOutputResult) -> None:
            ran["transformed"] += 1

    async with on_engine(workflows=[counting()]) as served:
        served.app.inngest.middleware.append(Marks)
        assert (await served.start("counting", 8)).result == 10
        assert served.front.posts == []
        assert ran["transformed"] > 0


async def test_a_report_that_is_not_taken_is_in_the_reply_though_another_went_out_beside_it():
    async def b(ctx: StepContext[Any]) -> None:
        async with asyncio.timeout(20):
            while not served.front.posts:  # noqa: ASYNC110 - until the other arm's report is under way
                await asyncio.sleep(0.005)

    def refuse(path: str) -> int | None:
        is_of_a = path.startswith("/v1/checkpoint") and served.front.posted[-1].endswith("a")
        return 500 if is_of_a and len(served.requests) == 1 else None

    workflow = create_workflow(id="w").parallel([step("a"), step("b", b)]).commit()
    async with on_engine(workflows=[workflow]) as served:
        served.front.refuse = refuse
        assert (await served.start("w")).status == "success"
        known = served.bodies[1]["steps"].values()
        outputs = [memo["data"]["record"]["status"] for memo in known if "record" in memo["data"]]
        assert (outputs, ran) == (["success"] * 2, {"a": 1, "b": 1})
