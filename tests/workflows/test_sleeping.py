"""Sleeps: how long they last, what passes through, what is known after them. The clock skips the waiting."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flowctl import create_workflow
from flowctl.testing import TestClock
from tests.workflows.making import Ran, start

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


async def slept(register: Any, workflow: Any, input_data: Any = None) -> tuple[Any, timedelta]:
    clock = TestClock(NOON)
    await register(workflow, clock=clock)
    return await start(workflow, input_data), clock.elapsed


@pytest.mark.parametrize("duration", [100, timedelta(milliseconds=100)])
async def test_a_sleep_lasts_as_long_as_it_says_and_passes_its_input_on(register, duration: Any) -> None:
    ran = Ran()
    workflow = (
        create_workflow(id="w").then(ran.step("one", lambda ctx: {"result": "success"})).sleep(duration)
    )
    workflow.then(ran.step("two", lambda ctx: f"slept successfully: {ctx.input_data['result']}"))
    result, elapsed = await slept(register, workflow, {})
    assert elapsed == timedelta(milliseconds=100)
    assert result.steps["two"].payload == {"result": "success"}
    assert (result.raw_result, ran) == ("slept successfully: success", ["one", "two"])
    record = result.steps["sleep_w_0"]
    assert (record.status, record.payload, record.output) == (
        "success",
        {"result": "success"},
        record.payload,
    )
    assert record.ended_at - record.started_at == 100


async def test_a_function_of_earlier_results_says_how_long(register) -> None:
    ran = Ran()
    one = ran.step("one", lambda ctx: {"value": 100})
    workflow = create_workflow(id="w").then(one)
    workflow.sleep(lambda ctx: ctx.get_step_result(one)["value"], id="nap")
    workflow.then(ran.step("two", lambda ctx: f"slept for: {ctx.input_data['value']}"))
    result, elapsed = await slept(register, workflow)
    assert (result.raw_result, elapsed) == ("slept for: 100", timedelta(milliseconds=100))
    assert result.step_execution_path == ["one", "nap", "two"]


async def test_results_from_before_a_sleep_are_known_after_it(register) -> None:
    ran = Ran()
    workflow = create_workflow(id="w").then(ran.step("one", lambda ctx: "before")).sleep(50)
    workflow.then(ran.step("two", lambda ctx: f"{ctx.get_step_result('one')} + after"))
    result, _ = await slept(register, workflow)
    assert (result.raw_result, ran) == ("before + after", ["one", "two"])


async def test_sleep_until_lasts_to_a_moment_that_is_given_or_computed(register) -> None:
    hour, day = NOON + timedelta(hours=1), NOON + timedelta(days=1)
    workflow = create_workflow(id="w").sleep_until(hour)
    workflow.sleep_until(lambda ctx: day.isoformat()).then(Ran().step("after", lambda ctx: "slept"))
    result, elapsed = await slept(register, workflow, {})
    assert (result.raw_result, elapsed) == ("slept", timedelta(days=1))


@pytest.mark.parametrize("nothing", [0, -5, lambda ctx: None, lambda ctx: -1])
async def test_a_sleep_of_nothing_or_less_does_not_wait(register, nothing: Any) -> None:
    result, elapsed = await slept(register, create_workflow(id="w").sleep(nothing), 7)
    assert (result.raw_result, elapsed) == (7, timedelta(0))


async def test_a_moment_that_has_passed_does_not_wait(register) -> None:
    workflow = create_workflow(id="w").sleep_until(NOON - timedelta(days=1)).sleep_until(lambda ctx: None)
    result, elapsed = await slept(register, workflow, 7)
    assert (result.raw_result, elapsed) == (7, timedelta(0))


async def test_a_sleep_whose_function_raises_fails_the_run_with_its_error(register) -> None:
    def broken(ctx: Any) -> int:
        raise LookupError("no time")

    result, _ = await slept(register, create_workflow(id="w").sleep(broken, id="nap"))
    assert (result.status, result.error.name, result.steps["nap"].status) == (
        "failed",
        "LookupError",
        "failed",
    )


async def test_a_run_that_sleeps_is_waiting(register) -> None:
    workflow = create_workflow(id="w").sleep(3_600_000, id="nap")
    await register(workflow)
    run = await workflow.create_run()
    stream = run.stream(1)
    async for event in stream:
        if event.type == "workflow-step-waiting":
            stored = await workflow.get_workflow_run_by_id(run.run_id)
            assert (stored.status, stored.steps["nap"].status) == ("waiting", "waiting")
            await run.cancel()
    assert stream.status == "canceled"
