"""Running again from a step on, with the past as it was or as it is given."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from flowctl import (
    StepContext,
    StepNotFoundError,
    StillRunningError,
    TimeTravelError,
    ValidationError,
    create_step,
    create_workflow,
)

pytestmark = pytest.mark.every_storage


class Number(BaseModel):
    n: int


ran: list[str] = []


@pytest.fixture(autouse=True)
def forget() -> None:
    ran.clear()


def adding(id: str, amount: int) -> Any:
    async def add(ctx: StepContext[Number]) -> Number:
        ran.append(id)
        return Number(n=ctx.input_data.n + amount)

    return create_step(id=id, input_schema=Number, output_schema=Number, execute=add)


def chain() -> Any:
    workflow = create_workflow(id="chain", input_schema=Number, output_schema=Number)
    return workflow.then(adding("one", 1)).then(adding("two", 2)).then(adding("three", 3)).commit()


async def test_a_run_that_never_ran_begins_at_a_step_with_the_given_past(register) -> None:
    workflow = chain()
    await register(workflow)
    run = await workflow.create_run()
    result = await run.time_travel("two", context={"one": {"status": "success", "output": {"n": 10}}})
    assert (result.raw_result, ran) == ({"n": 15}, ["two", "three"])
    assert result.steps["one"].output == {"n": 10}


async def test_a_finished_run_is_run_again_from_a_step_with_its_own_past(register) -> None:
    workflow = chain()
    await register(workflow)
    run = await workflow.create_run()
    assert (await run.start({"n": 0})).raw_result == {"n": 6}
    assert (await run.time_travel("three")).raw_result == {"n": 6}
    assert (await run.time_travel("three", input_data={"n": 100})).raw_result == {"n": 103}
    assert ran == ["one", "two", "three", "three", "three"]


async def test_per_step_stops_after_one_step(register) -> None:
    workflow = chain()
    await register(workflow)
    run = await workflow.create_run()
    result = await run.time_travel("two", context={"one": {"output": {"n": 1}}}, per_step=True)
    assert (result.status, ran, result.steps["two"].output) == ("paused", ["two"], {"n": 3})


async def test_parallel_siblings_that_are_known_do_not_run(register) -> None:
    def total(ctx: StepContext[dict[str, Number]]) -> Number:
        return Number(n=sum(arm.n for arm in ctx.input_data.values()))

    workflow = create_workflow(id="w", input_schema=Number).parallel([adding("a", 1), adding("b", 2)])
    workflow.map(total, id="sum").commit()
    await register(workflow)
    run = await workflow.create_run()
    known = {"a": {"output": {"n": 5}}}
    result = await run.time_travel("b", input_data={"n": 1}, context=known)
    assert (result.raw_result, ran) == ({"n": 8}, ["b"])


async def test_the_target_in_a_branch_is_the_arm_that_runs(register) -> None:
    workflow = create_workflow(id="w", input_schema=Number)
    workflow.branch([(lambda ctx: True, adding("a", 1)), (lambda ctx: True, adding("b", 2))]).commit()
    await register(workflow)
    run = await workflow.create_run()
    result = await run.time_travel("b", input_data={"n": 1})
    assert (result.raw_result, ran) == ({"b": {"n": 3}}, ["b"])
    assert result.steps["a"].status == "skipped"


async def test_a_step_inside_a_nested_workflow_is_a_target(register) -> None:
    inner = create_workflow(id="inner", input_schema=Number, output_schema=Number)
    inner.then(adding("first", 1)).then(adding("second", 10)).commit()
    workflow = create_workflow(id="outer", input_schema=Number).then(adding("one", 1)).then(inner)
    workflow.then(adding("last", 100)).commit()
    await register(workflow)
    run = await workflow.create_run()
    assert (await run.start({"n": 0})).raw_result == {"n": 112}
    ran.clear()
    result = await run.time_travel("inner.second")
    assert (result.raw_result, ran) == ({"n": 112}, ["second", "last"])


async def test_resume_data_reaches_the_target(register) -> None:
    async def ask(ctx: StepContext[Number, Number]) -> Number:
        return Number(n=ctx.input_data.n + ctx.resume_data.n) if ctx.resume_data else await ctx.suspend()

    asking = create_step(id="ask", input_schema=Number, resume_schema=Number, execute=ask)
    workflow = create_workflow(id="w", input_schema=Number).then(adding("one", 1)).then(asking).commit()
    await register(workflow)
    run = await workflow.create_run()
    assert (await run.start({"n": 0})).status == "suspended"
    assert (await run.time_travel("ask", resume_data={"n": 5})).raw_result == {"n": 6}
    assert (await run.time_travel("ask")).status == "suspended"


async def test_what_cannot_be_travelled_to_is_refused_and_nothing_changes(register) -> None:
    workflow = chain()
    app = await register(workflow)
    run = await workflow.create_run()
    with pytest.raises(StepNotFoundError, match="not found in execution graph: 'nope'"):
        await run.time_travel("nope")
    with pytest.raises(ValidationError, match="n: Input should be a valid integer"):
        await run.time_travel("two", input_data={"n": "x"})
    await run.time_travel("two", context={"one": {"output": {"n": 1}}}, per_step=True)
    with pytest.raises(StepNotFoundError, match="does not exist in the current execution graph"):
        await run.time_travel("nope")
    with pytest.raises(StepNotFoundError, match="Step is required"):
        await run.time_travel([])
    snapshot = await app.storage.load_snapshot("chain", run.run_id)
    del snapshot["context"]["one"]
    await app.storage.save_snapshot("chain", run.run_id, snapshot)
    with pytest.raises(TimeTravelError, match="no record of 'one'"):
        await run.time_travel("three", input_data={"n": 1})
    await app.storage.save_snapshot("chain", run.run_id, {**snapshot, "status": "running"})
    with pytest.raises(StillRunningError, match="still running"):
        await run.time_travel("two")


async def test_a_time_travel_is_streamed(register) -> None:
    workflow = chain()
    await register(workflow)
    run = await workflow.create_run()
    await run.start({"n": 0})
    stream = run.time_travel_stream("three")
    types = [event.type async for event in stream]
    assert types == ["workflow-start", "workflow-step-start", "workflow-step-result", "workflow-finish"]
    assert (await stream.result()).raw_result == {"n": 6}


async def test_records_of_nested_workflows_are_given_by_their_workflow(register) -> None:
    inner = create_workflow(id="inner", input_schema=Number, output_schema=Number)
    inner.then(adding("first", 1)).then(adding("second", 10)).commit()
    workflow = create_workflow(id="outer", input_schema=Number).then(inner).commit()
    await register(workflow)
    run = await workflow.create_run()
    await run.start({"n": 0})
    ran.clear()
    given = {"inner": {"first": {"status": "success", "output": {"n": 5}}}}
    result = await run.time_travel("inner.second", nested_steps_context=given)
    assert (result.raw_result, ran) == ({"n": 15}, ["second"])


async def test_values_of_the_request_context_come_over_those_of_the_run(register) -> None:
    async def greet(ctx: StepContext[Any]) -> dict[str, Any]:
        return dict(ctx.request_context.items())

    workflow = create_workflow(id="w").then(create_step(id="greet", execute=greet)).commit()
    await register(workflow)
    run = await workflow.create_run()
    await run.start(request_context={"user": "ada", "tone": "kind"})
    travelled = await run.time_travel("greet", request_context={"user": "bob"})
    assert travelled.raw_result == {"user": "bob", "tone": "kind"}


def listed(broken: set[int]) -> Any:
    async def work(ctx: StepContext[int]) -> int:
        ran.append(f"item-{ctx.input_data}")
        if ctx.input_data in broken:
            raise ValueError("broken")
        return ctx.input_data * 10

    return create_step(id="work", execute=work)


async def same(ctx: StepContext[Any]) -> Any:
    ran.append("same")
    return ctx.input_data


async def test_a_failed_foreach_is_run_again_without_the_items_that_had_succeeded(register) -> None:
    broken = {2}
    workflow = create_workflow(id="w").then(create_step(id="same", execute=same))
    workflow.foreach(listed(broken)).commit()
    await register(workflow)
    run = await workflow.create_run()
    assert (await run.start([0, 1, 2, 3])).status == "failed"
    broken.clear()
    ran.clear()
    assert (await run.time_travel("work")).raw_result == [0, 10, 20, 30]
    assert ran == ["item-2", "item-3"]


async def test_a_foreach_that_succeeded_or_gets_other_items_runs_them_all(register) -> None:
    broken = {2}
    workflow = create_workflow(id="w").foreach(listed(broken)).commit()
    await register(workflow)
    run = await workflow.create_run()
    assert (await run.start([1, 2])).status == "failed"
    broken.clear()
    ran.clear()
    assert (await run.time_travel("work", input_data=[1, 5])).raw_result == [10, 50]
    assert (await run.time_travel("work", input_data=[1, 5])).raw_result == [10, 50]
    assert ran == ["item-5", "item-1", "item-5"]


async def test_a_failed_foreach_of_nested_workflows_keeps_the_items_that_had_succeeded(register) -> None:
    broken = {2}
    inner = create_workflow(id="inner").then(listed(broken)).commit()
    workflow = create_workflow(id="w").foreach(inner, concurrency=2).commit()
    await register(workflow)
    run = await workflow.create_run()
    assert (await run.start([0, 1, 2, 3])).status == "failed"
    broken.clear()
    finished = {name for name in ran if name != "item-2"}
    ran.clear()
    with pytest.raises(StepNotFoundError, match=r"into the items of a foreach: 'inner\.work'"):
        await run.time_travel("inner.work")
    assert (await run.time_travel("inner")).raw_result == [0, 10, 20, 30]
    assert set(ran) == {f"item-{n}" for n in range(4)} - finished


async def test_per_step_the_target_is_the_arm_that_runs_and_the_others_follow(register) -> None:
    workflow = create_workflow(id="w", input_schema=Number)
    workflow.parallel([adding("a", 1), adding("b", 2), adding("c", 3)]).then(
        create_step(id="same", execute=same)
    ).commit()
    await register(workflow)
    run = await workflow.create_run()
    result = await run.time_travel("b", input_data={"n": 0}, per_step=True)
    assert (result.status, ran, list(result.steps)) == ("paused", ["b"], ["b"])
    assert (await run.resume(per_step=True)).status == "paused"
    assert (await run.resume()).raw_result == {"a": {"n": 1}, "b": {"n": 2}, "c": {"n": 3}}
    assert ran == ["b", "a", "c", "same"]


async def test_known_arms_of_a_parallel_are_not_run_for_the_step_after_it(register) -> None:
    def join(ctx: StepContext[Any]) -> Any:
        return {"combined": "-".join(arm["result"] for arm in ctx.input_data.values())}

    workflow = create_workflow(id="w").parallel([adding("a", 1), adding("b", 2)])
    workflow.then(create_step(id="join", execute=join)).commit()
    await register(workflow)
    known = {
        id: {
            "status": "success",
            "payload": {},
            "output": {"result": f"pre-{id}"},
            "startedAt": 1,
            "endedAt": 2,
        }
        for id in ("a", "b")
    }
    result = await (await workflow.create_run()).time_travel("join", context=known)
    assert (result.raw_result, ran) == ({"combined": "pre-a-pre-b"}, [])


async def test_a_finished_run_may_be_given_another_past(register) -> None:
    workflow = chain()
    await register(workflow)
    run = await workflow.create_run()
    await run.start({"n": 1})
    ran.clear()
    past = {"one": {"status": "success", "payload": {"n": 1}, "output": {"n": 10}}}
    result = await run.time_travel(workflow.steps["two"], context=past)
    assert (result.raw_result, result.steps["one"].output, ran) == ({"n": 15}, {"n": 10}, ["two", "three"])


async def test_a_nested_workflow_as_a_whole_is_a_target(register) -> None:
    inner = create_workflow(id="inner", input_schema=Number).then(adding("two", 1)).then(adding("three", 1))
    workflow = create_workflow(id="w", input_schema=Number).then(adding("one", 1)).then(inner.commit())
    await register(workflow.then(adding("four", 1)))
    run = await workflow.create_run()
    result = await run.time_travel(inner, context={"one": {"status": "success", "output": {"n": 2}}})
    assert (result.steps["inner"].output, result.raw_result) == ({"n": 4}, {"n": 5})
    assert ran == ["two", "three", "four"]


@pytest.mark.parametrize("per_step", [False, True])
async def test_the_step_before_a_branch_is_not_run_for_an_arm_in_it(register, per_step: bool) -> None:
    arms = [(lambda ctx: True, adding("a", 1)), (lambda ctx: True, adding("b", 2))]
    workflow = create_workflow(id="w").then(adding("check", 1)).branch(arms).commit()
    await register(workflow)
    past = {"check": {"status": "success", "output": {"n": 1}}}
    result = await (await workflow.create_run()).time_travel("a", context=past, per_step=per_step)
    assert (result.status, result.steps["a"].output, ran) == (
        "paused" if per_step else "success",
        {"n": 2},
        ["a"],
    )
    assert result.raw_result == (None if per_step else {"a": {"n": 2}})


async def test_a_loop_that_is_known_is_not_run_for_the_step_after_it(register) -> None:
    workflow = create_workflow(id="w", input_schema=Number)
    workflow.dountil(adding("loop", 1), lambda ctx: ctx.input_data.n >= 3)
    workflow.then(create_step(id="final", execute=lambda ctx: {"final": ctx.input_data["n"]})).commit()
    await register(workflow)
    past = {"loop": {"status": "success", "output": {"n": 3}}}
    result = await (await workflow.create_run()).time_travel("final", context=past)
    assert (result.raw_result, ran) == ({"final": 3}, [])


async def test_an_arm_of_a_parallel_is_run_alone_per_step(register) -> None:
    workflow = create_workflow(id="w", input_schema=Number).then(adding("init", 1))
    workflow.parallel([adding("a", 1), adding("b", 2)]).then(create_step(id="end", execute=lambda ctx: 0))
    await register(workflow)
    past = {"init": {"output": {"n": 1}}, "b": {"output": {"n": 9}}}
    result = await (await workflow.create_run()).time_travel("a", context=past, per_step=True)
    assert (result.status, ran, "end" in result.steps) == ("paused", ["a"], False)
    assert (result.steps["a"].output, result.steps["b"].output) == ({"n": 2}, {"n": 9})
