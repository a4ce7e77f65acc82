"""Steps of plain Inngest functions are reported while their request goes on, so a function runs once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import inngest
import pytest

from flowctl.legs import LegLimits
from flowctl.runners.checkpoints import hashed
from tests.runners.front import Served, on_engine

CLIENT = inngest.Inngest(app_id="test", is_production=False)
Steps = Callable[[inngest.Context], Awaitable[Any]]
ran: Counter[str] = Counter()


def step(name: str, gives: Any = None) -> Callable[[], Awaitable[Any]]:
    """A step's code, which counts."""

    async def run() -> Any:
        ran[name] += 1
        return gives

    return run


async def three(ctx: inngest.Context) -> list[int]:
    ran["function"] += 1
    return [await ctx.step.run(name, step(name, number)) for number, name in enumerate("abc")]


async def outcome(
    steps: Steps, around: Callable[[Served], None] = lambda _: None, *, middleware: Any = None, **options: Any
) -> Any:
    """What a function with these steps comes to, its app, and that counts were reset before."""
    ran.clear()
    ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    async def function(ctx: inngest.Context) -> Any:
        result = await steps(ctx)
        if not ended.done():
            ended.set_result(result)
        return result

    made = CLIENT.create_function(
        fn_id="f",
        trigger=inngest.TriggerEvent(event="go"),
        retries=1,
        middleware=middleware,
    )(function)
    async with on_engine(functions=[made], retry_seconds=0.01, **options) as served:
        around(served)
        await served.app.inngest.send(inngest.Event(name="go", data={"n": 1}))
        async with asyncio.timeout(20):
            result = await ended
        await served.app.stop()
        return result, served


async def test_a_function_goes_through_its_steps_in_one_request():
    result, served = await outcome(three)
    assert result == [0, 1, 2]
    assert (served.front.posted, len(served.requests)) == (["a", "b", "c"], 1)
    assert ran == {"function": 1, "a": 1, "b": 1, "c": 1}


async def test_a_step_gives_what_it_would_give_a_later_request():
    async def tuples(ctx: inngest.Context) -> Any:
        return await ctx.step.run("pair", step("pair", (1, {2: "two"})))

    assert (await outcome(tuples))[0] == [1, {"2": "two"}]


async def test_steps_of_one_name_are_told_apart():
    async def twice(ctx: inngest.Context) -> Any:
        return [await ctx.step.run("a", step("a", number)) for number in (1, 2)]

    result, served = await outcome(twice)
    assert result == [1, 2]
    ids = [step["id"] for post in served.front.posts for step in post["steps"]]
    assert ids == [hashed("a"), hashed("a:1")]


async def test_a_step_that_fails_is_tried_again_and_what_ended_before_is_not():
    async def fails_once(ctx: inngest.Context) -> Any:
        async def flaky() -> int:
            ran["b"] += 1
            return 1 // (ran["b"] - 1)

        return [await ctx.step.run("a", step("a", 0)), await ctx.step.run("b", flaky), *await three(ctx)]

    result, served = await outcome(fails_once)
    assert result == [0, 1, 0, 1, 2]
    assert ran["a"] == ran["c"] + 1 == 2
    assert [body["ctx"]["attempt"] for body in served.bodies] == [0, 1, 0]


async def test_a_step_whose_report_is_not_taken_is_answered_and_runs_once():
    def refuse(served: Served) -> None:
        served.front.refuse = lambda path: 500 if path.startswith("/v1/checkpoint") else None

    result, served = await outcome(three, refuse)
    assert result == [0, 1, 2]
    assert ran == {"function": 4, "a": 1, "b": 1, "c": 1}
    assert len(served.requests) == 4


async def test_a_request_that_was_given_up_runs_no_further_step():
    def refuse_once(served: Served) -> None:
        answers = iter([409])
        served.front.refuse = lambda path: next(answers, None) if path.startswith("/v1/checkpoint") else None

    result, served = await outcome(three, refuse_once)
    assert result == [0, 1, 2]
    assert (ran["function"], ran["a"], len(served.requests)) == (2, 1, 2)


async def test_what_ended_is_known_after_a_sleep_and_beside_others_at_once():
    async def mixed(ctx: inngest.Context) -> Any:
        first = await ctx.step.run("a", step("a", 1))
        await ctx.step.sleep("nap", 20)
        both = await ctx.group.parallel([
            lambda: ctx.step.run("b", step("b", 2)), lambda: ctx.step.run("c", step("c", 3))
        ])  # fmt: skip
        return [first, *both, await ctx.step.run("d", step("d", 4))]

    result, _ = await outcome(mixed)
    assert result == [1, 2, 3, 4]
    assert ran == dict.fromkeys("abcd", 1)


async def test_after_its_time_a_request_is_answered_with_the_next_step():
    result, served = await outcome(three, leg_limits=LegLimits(seconds=0))
    assert result == [0, 1, 2]
    assert (served.front.posts, len(served.requests)) == ([], 4)


class MarksOutputs(inngest.Middleware):
    async def transform_output(self, result: inngest.TransformOutputResult) -> None:
        result.output = ["marked", result.output] if result.step else result.output


class MarksMemos(inngest.Middleware):
    async def transform_input(self, ctx: Any, function: Any, steps: inngest.StepMemos) -> None:
        for memo in steps.values():
            memo.data = ["marked", memo.data]


@pytest.mark.parametrize("whose", ["function", "client"])
@pytest.mark.parametrize("marks", [MarksOutputs, MarksMemos])
async def test_middleware_that_may_change_what_steps_give_is_applied_by_the_sdk_itself(
    marks: type[inngest.Middleware], whose: str
):
    def add(served: Served) -> None:
        if whose == "client":
            served.app.inngest.middleware.append(marks)

    result, served = await outcome(three, add, middleware=[marks] if whose == "function" else None)
    assert result == [["marked", 0], ["marked", 1], ["marked", 2]]
    assert served.front.posts == []


async def test_a_timeout_that_comes_while_a_step_is_reported_does_not_change_what_it_came_to():
    is_over = asyncio.Event()

    async def timed(ctx: inngest.Context) -> Any:
        try:
            async with asyncio.timeout(None) as limit:

                async def end() -> str:
                    limit.reschedule(asyncio.get_running_loop().time() + 0.05)
                    return "ended"

                return await ctx.step.run("a", end)
        except TimeoutError:
            return "late"
        finally:
            is_over.set()

    def hold(served: Served) -> None:
        served.front.waits = lambda path: is_over.wait() if path.startswith("/v1/checkpoint") else None

    result, served = await outcome(timed, hold)
    assert (result, len(served.requests)) == ("ended", 2)


async def test_what_is_no_json_is_an_error_of_the_sdk_and_tried_again():
    async def odd(ctx: inngest.Context) -> Any:
        return await ctx.step.run("odd", step("odd", object() if not ctx.attempt else 1))

    result, served = await outcome(odd)
    assert (result, ran["odd"], served.front.posts) == (1, 2, [])
