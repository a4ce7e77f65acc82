"""What each node of the graph does, seen from the result."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel

from flowctl import (
    App,
    DefinitionError,
    StepContext,
    ValidationError,
    clone_step,
    create_step,
    create_workflow,
    step,
)


class Counter(BaseModel):
    value: int


@step
async def increment(data: Counter) -> Counter:
    return Counter(value=data.value + 1)


@step
async def double(data: Counter) -> Counter:
    return Counter(value=data.value * 2)


def counter(id: str = "counter", **options: Any) -> Any:
    return create_workflow(id=id, input_schema=Counter, **options)


async def run(workflow: Any, input_data: Any, **options: Any) -> Any:
    return await (await workflow.create_run()).start(input_data, **options)


async def test_dountil_repeats_until_the_condition_holds(register) -> None:
    workflow = counter(output_schema=Counter).dountil(increment, lambda ctx: ctx.input_data.value >= 10)
    await register(workflow)
    result = await run(workflow, {"value": 5})
    assert (result.status, result.result) == ("success", Counter(value=10))
    assert result.steps["increment"].metadata == {"iterationCount": 5}


async def test_dowhile_runs_the_step_once_even_when_the_condition_is_false(register) -> None:
    workflow = counter().dowhile(increment, lambda ctx: False)
    await register(workflow)
    assert (await run(workflow, Counter(value=1))).raw_result == {"value": 2}


async def test_a_loop_condition_that_raises_fails_the_run_with_that_error(register) -> None:
    def broken(ctx: Any) -> bool:
        raise LookupError("no limit")

    workflow = counter().dountil(increment, broken)
    await register(workflow)
    result = await run(workflow, {"value": 1})
    assert (result.status, result.error.name, result.error.message) == ("failed", "LookupError", "no limit")


async def test_parallel_gives_the_same_input_to_all_and_a_dict_of_outputs(register) -> None:
    workflow = counter().parallel([increment, double])
    await register(workflow)
    result = await run(workflow, {"value": 5})
    assert result.raw_result == {"increment": {"value": 6}, "double": {"value": 10}}


async def test_parallel_steps_really_overlap(register) -> None:
    meeting = asyncio.Barrier(2)

    async def meet(ctx: StepContext[Any]) -> None:
        await asyncio.wait_for(meeting.wait(), 5)

    workflow = create_workflow(id="w").parallel(
        [create_step(id="a", execute=meet), create_step(id="b", execute=meet)]
    )
    await register(workflow)
    assert (await run(workflow, {})).status == "success"


async def test_parallel_fails_with_the_first_failure_in_list_order_after_all_have_settled(register) -> None:
    finished: list[str] = []

    @step
    async def bad(data: Any) -> None:
        raise ValueError("bad")

    @step
    async def slow(data: Any) -> str:
        await asyncio.sleep(0)
        finished.append("slow")
        return "slow"

    workflow = create_workflow(id="w").parallel([bad, slow])
    await register(workflow)
    result = await run(workflow, {})
    assert (result.status, result.error.message, finished) == ("failed", "bad", ["slow"])


async def test_branch_runs_every_arm_whose_condition_is_true(register) -> None:
    third = clone_step(double, id="third")
    workflow = counter().branch(
        [
            (lambda ctx: ctx.input_data.value > 1, increment),
            (lambda ctx: ctx.input_data.value > 100, double),
            (lambda ctx: True, third),
        ]
    )
    await register(workflow)
    result = await run(workflow, {"value": 5})
    assert result.raw_result == {"increment": {"value": 6}, "third": {"value": 10}}


async def test_a_branch_condition_that_raises_counts_as_false(register) -> None:
    workflow = counter().branch([(lambda ctx: 1 / 0, increment)])
    await register(workflow)
    assert (await run(workflow, {"value": 5})).raw_result == {}


async def test_foreach_keeps_the_order_of_the_items(register) -> None:
    @step
    async def square(data: int) -> int:
        return data * data

    workflow = create_workflow(id="w", input_schema=list[int]).foreach(square, concurrency=2)
    await register(workflow)
    result = await run(workflow, [1, 2, 3])
    assert result.raw_result == [1, 4, 9]
    assert result.steps["square"].payload == [1, 2, 3]


async def test_foreach_runs_at_most_so_many_items_at_a_time(register) -> None:
    meeting, running, most = asyncio.Barrier(3), 0, 0

    @step
    async def item(data: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.wait_for(meeting.wait(), 20)  # three are under way at once
        running -= 1
        return data

    workflow = create_workflow(id="w").foreach(item, concurrency=3)
    await register(workflow)
    assert (await run(workflow, list(range(9)))).raw_result == list(range(9))
    assert most == 3


async def test_foreach_over_an_empty_list_gives_an_empty_list(register) -> None:
    workflow = create_workflow(id="w").foreach(increment)
    await register(workflow)
    assert (await run(workflow, [])).raw_result == []


async def test_foreach_over_something_else_fails_and_says_what_it_got(register) -> None:
    workflow = create_workflow(id="w").foreach(increment)
    await register(workflow)
    result = await run(workflow, {"value": 1})
    assert result.status == "failed"
    assert "needs a list" in result.error.message


async def test_sleep_passes_its_input_on(register) -> None:
    workflow = counter().then(increment).sleep(1).sleep(timedelta(milliseconds=1)).then(double)
    await register(workflow)
    result = await run(workflow, {"value": 1})
    assert result.raw_result == {"value": 4}
    assert result.steps["sleep_counter_0"].status == "success"


async def test_sleep_and_sleep_until_take_functions_of_the_context(register) -> None:
    workflow = (
        counter()
        .sleep(lambda ctx: ctx.input_data.value)
        .sleep_until(lambda ctx: datetime.now(UTC))
        .then(increment)
    )
    await register(workflow)
    assert (await run(workflow, {"value": 1})).raw_result == {"value": 2}


async def test_a_nested_workflow_is_one_step_of_its_parent(register) -> None:
    inner = counter("inner").then(increment).then(double).commit()
    outer = counter("outer").then(inner).then(increment)
    await register(outer)
    result = await run(outer, {"value": 1})
    assert result.raw_result == {"value": 5}
    assert list(result.steps) == ["inner", "increment"]


async def test_a_nested_workflow_in_a_loop_runs_its_steps_anew_each_time(register) -> None:
    inner = counter("inner", output_schema=Counter).then(increment).then(double).commit()
    outer = counter("outer").dountil(inner, lambda ctx: ctx.get_step_result("inner")["value"] > 20)
    await register(outer)
    assert (await run(outer, {"value": 1})).raw_result == {"value": 22}
    again = counter("again").dountil(inner, lambda ctx: ctx.iteration_count == 3)
    await register(again)
    assert (await run(again, {"value": 1})).raw_result == {"value": 22}


async def test_map_takes_a_function_of_the_context(register) -> None:
    workflow = counter().then(increment).map(lambda ctx: {"value": ctx.input_data.value * 10}).then(double)
    await register(workflow)
    assert (await run(workflow, {"value": 1})).raw_result == {"value": 40}


async def test_map_takes_keys_from_steps_input_constants_functions_and_templates(register) -> None:
    workflow = (
        counter()
        .then(increment)
        .map(
            {
                "step": {"step": increment, "path": "value"},
                "input": {"init_data": True, "path": "value"},
                "constant": {"value": 0},
                "fn": {"fn": lambda ctx: ctx.input_data.value + 100},
                "text": {"template": "got ${inputData.value} of ${stepResults.increment.value}"},
                "who": {"request_context_path": "user"},
            }
        )
    )
    await register(workflow)
    result = await run(workflow, {"value": 1}, request_context={"user": "ada"})
    assert result.raw_result == {
        "step": 2, "input": 1, "constant": 0, "fn": 102, "text": "got 2 of 2", "who": "ada",
    }  # fmt: skip


@pytest.mark.parametrize("template", ["${ inputData.x }", "${}", "${nope.x}", "${stepResults.}"])
def test_a_wrong_template_is_refused_when_it_is_defined(template: str) -> None:
    with pytest.raises(DefinitionError):
        create_workflow(id="w").map({"x": {"template": template}})


async def test_input_that_does_not_fit_is_refused_before_anything_starts(register) -> None:
    workflow = counter().then(increment)
    await register(workflow)
    run = await workflow.create_run()
    with pytest.raises(ValidationError, match=r"Invalid input data: \n- value: "):
        await run.start({"value": "many"})
    assert (await workflow.get_workflow_run_by_id(run.run_id)).status == "pending"
    assert (await run.start({"value": 1})).status == "success"


async def test_an_output_of_the_wrong_shape_fails_the_step_and_names_the_field(register) -> None:
    wrong = create_step(id="wrong", output_schema=Counter, execute=lambda ctx: {"valu": 1})
    workflow = create_workflow(id="w").then(wrong)
    await register(workflow)
    result = await run(workflow, {})
    assert result.status == "failed"
    assert "value: Field required" in result.error.message


async def test_a_step_whose_input_does_not_fit_fails_with_the_issues(register) -> None:
    workflow = create_workflow(id="w").map(lambda ctx: {"value": "x"}).then(increment)
    await register(workflow)
    result = await run(workflow, {})
    assert "Step input validation failed" in result.error.message
    assert result.error.cause.issues[0]["field"] == "value"


def test_a_workflow_without_steps_and_two_steps_under_one_id_are_refused() -> None:
    with pytest.raises(DefinitionError, match="Execution flow of workflow is not defined"):
        create_workflow(id="w").commit()
    with pytest.raises(DefinitionError, match="two different steps with the id 'increment'"):
        create_workflow(id="w").then(increment).then(clone_step(double, id="increment")).commit()


def later(ctx: StepContext[Any]) -> bool:
    return True


@pytest.mark.parametrize(
    ("define", "says"),
    [
        (lambda w: w.sleep("a week"), "sleep takes whole milliseconds.*got 'a week'"),
        (lambda w: w.sleep_until("2026-01-01"), "sleep_until takes a datetime.*got '2026-01-01'"),
        (lambda w: w.dowhile(increment, True), "a condition must be a function of the context, not True"),
        (lambda w: w.branch([(5, increment)]), "a condition must be a function of the context, not 5"),
        (lambda w: w.branch([increment]), r"branch takes \(condition, step\) pairs"),
        (lambda w: w.branch([(later, 5)]), "Expected a Step or a Workflow, got 5"),
        (lambda w: w.foreach(increment, concurrency="2"), "concurrency must be 1 or more.*got '2'"),
        (lambda _: create_workflow(id="w", retry_config={"attempt": 1}), "got {'attempt': 1}"),
        (lambda _: create_workflow(id="w", retry_config={"attempts": "1"}), "got {'attempts': '1'}"),
        (lambda _: create_workflow(id="w", on_finish=5), "on_finish must be a function, or None; got 5"),
        (lambda _: App(workflows=[increment]), "App takes workflows, made by create_workflow"),
    ],
)
def test_what_cannot_run_is_refused_where_it_is_defined(define: Any, says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        define(create_workflow(id="w"))


@pytest.mark.parametrize(
    ("schema", "says"), [(5, "The schema 5 is no type"), ("Nope", "'Nope' is not defined")]
)
async def test_a_schema_that_is_no_type_is_named_when_the_run_begins(
    register, schema: Any, says: str
) -> None:
    workflow = create_workflow(id="w", input_schema=schema).then(increment)
    await register(workflow)
    with pytest.raises(DefinitionError, match=says):
        await run(workflow, 1)
