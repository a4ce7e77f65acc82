"""Resuming in every place: several cycles, items, branches, loops, nested paths; what is there again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

from flowctl import (
    AlreadyClaimedError,
    AmbiguousStepError,
    NotSuspendedError,
    RunNotFoundError,
    StepContext,
    clone_step,
    create_step,
    create_workflow,
)  # fmt: skip

pytestmark = pytest.mark.every_storage


class Amount(BaseModel):
    by: int = 21


async def ask(ctx: StepContext[Any, Amount]) -> int:
    if ctx.resume_data is None:
        await ctx.suspend({"ask": ctx.input_data}, resume_label=f"for-{ctx.input_data}")
    return ctx.input_data + ctx.resume_data.by


add = create_step(id="add", resume_schema=Amount, execute=ask)


async def ask_above_five(ctx: StepContext[int, Amount]) -> int:
    if ctx.input_data > 5 and ctx.resume_data is None:
        await ctx.suspend({"above": ctx.input_data})
    return ctx.input_data + (ctx.resume_data.by if ctx.resume_data else 11)


picky = create_step(id="picky", resume_schema=Amount, execute=ask_above_five)


async def suspended(workflow: Any, input_data: Any, **options: Any) -> Any:
    run = await workflow.create_run()
    result = await run.start(input_data, **options)
    assert result.status == "suspended"
    return run


def total(ctx: StepContext[Any]) -> int:
    return sum(ctx.input_data)


async def test_input_state_context_and_what_was_asked_are_there_again(register) -> None:
    async def ask_for_all(ctx: StepContext[Any]) -> Any:
        if ctx.resume_data is None:
            ctx.set_state({"count": 1})
            ctx.request_context.set("said", "before")
            await ctx.suspend({"why": "ask"})
        asked = ctx.suspend_data["why"]
        return [ctx.input_data, ctx.get_init_data(), ctx.state, dict(ctx.request_context), asked]

    workflow = create_workflow(id="w").map(lambda ctx: {"mapped": ctx.input_data})
    workflow.then(create_step(id="ask", execute=ask_for_all))
    await register(workflow)
    run = await suspended(workflow, "in", initial_state={"count": 0}, request_context={"given": 1})
    again = await workflow.create_run(run_id=run.run_id)
    result = await again.resume(resume_data={"go": True}, request_context={"given": 2})
    context = {"given": 2, "said": "before"}
    assert result.raw_result == [{"mapped": "in"}, "in", {"count": 1}, context, "ask"]


async def test_a_resumed_record_keeps_its_payload_and_tells_both_times(register) -> None:
    workflow = create_workflow(id="w").then(add)
    await register(workflow)
    run = await suspended(workflow, 1)
    before = (await workflow.get_workflow_run_by_id(run.run_id)).steps["add"]
    record = (await run.resume(resume_data={"by": 2})).steps["add"]
    assert (record.payload, record.output, record.resume_payload) == (1, 3, {"by": 2})
    assert record.started_at == before.started_at
    assert record.resumed_at is not None
    assert record.resumed_at >= (before.suspended_at or 0)


async def test_defaults_of_the_resume_schema_are_filled_in(register) -> None:
    workflow = create_workflow(id="w").then(add)
    await register(workflow)
    assert (await (await suspended(workflow, 1)).resume(resume_data={})).raw_result == 22


@pytest.mark.parametrize("block", ["parallel", "branch"])
async def test_suspended_arms_are_resumed_one_by_one(register, block: str) -> None:
    arms = [clone_step(add, id="one"), clone_step(add, id="two")]
    workflow = create_workflow(id="w")
    if block == "parallel":
        workflow.parallel(arms)
    else:
        workflow.branch([(lambda ctx: True, arm) for arm in arms])
    await register(workflow)
    run = await workflow.create_run()
    result = await run.start(10)
    assert result.suspended == [["one"], ["two"]]
    assert result.suspend_payload == {"one": {"ask": 10}, "two": {"ask": 10}}
    result = await run.resume(step=arms[0], resume_data={"by": 1})
    assert (result.status, result.suspended) == ("suspended", [["two"]])
    assert (result.steps["one"].status, result.steps["two"].status) == ("success", "suspended")
    result = await run.resume(step=["two"], resume_data={"by": 2})
    assert (result.status, result.raw_result) == ("success", {"one": 11, "two": 12})


async def test_foreach_resumes_all_suspended_items_at_once_and_starts_the_rest(register) -> None:
    workflow = create_workflow(id="w").foreach(picky, concurrency=3).map(total)
    await register(workflow)
    run = await suspended(workflow, [22, 1, 333, 444, 1000])
    result = await run.resume(resume_data={"by": 5})
    assert (result.status, result.suspend_payload["picky"]) == ("suspended", {"above": 444})
    result = await run.resume(resume_data={"by": 5})
    assert (result.steps["picky"].output, result.raw_result) == ([27, 12, 338, 449, 1005], 1831)


async def test_foreach_resumes_items_by_index(register) -> None:
    workflow = create_workflow(id="w").foreach(picky, concurrency=3)
    await register(workflow)
    run = await suspended(workflow, [12, 133, 344])
    statuses = []
    for index, by in [(2, 300), (0, 100), (1, 200)]:
        result = await run.resume(step="picky", for_each_index=index, resume_data={"by": by})
        statuses.append(result.status)
    assert (statuses, result.raw_result) == (["suspended", "suspended", "success"], [112, 333, 644])
    with pytest.raises(NotSuspendedError):
        await run.resume(for_each_index=1, resume_data={"by": 1})


async def test_an_item_that_does_not_wait_cannot_be_resumed(register) -> None:
    workflow = create_workflow(id="w").foreach(picky, concurrency=3)
    await register(workflow)
    run = await suspended(workflow, [12, 1])
    with pytest.raises(NotSuspendedError, match="item 1"):
        await run.resume(for_each_index=1, resume_data={"by": 1})
    assert (await run.resume(for_each_index=0, resume_data={"by": 1})).raw_result == [13, 12]


async def test_foreach_resumes_an_item_by_its_label(register) -> None:
    workflow = create_workflow(id="w").foreach(add, concurrency=2)
    await register(workflow)
    run = await workflow.create_run()
    result = await run.start([1, 2])
    assert result.resume_labels["for-2"] == {"stepId": "add", "foreachIndex": 1}
    assert (await run.resume(label="for-2", resume_data={"by": 10})).status == "suspended"
    assert (await run.resume(label="for-1", resume_data={"by": 20})).raw_result == [21, 12]


async def test_several_cycles_of_one_step(register) -> None:
    async def twice(ctx: StepContext[int]) -> Any:
        asked = (ctx.suspend_data or {}).get("asked", 0)
        if asked < 2:
            await ctx.suspend({"asked": asked + 1})
        return [ctx.input_data, asked, ctx.resume_data]

    workflow = create_workflow(id="w").then(create_step(id="twice", execute=twice))
    await register(workflow)
    run = await suspended(workflow, 7)
    result = await run.resume(resume_data="first")
    assert (result.status, result.suspend_payload) == ("suspended", {"twice": {"asked": 2}})
    assert (await run.resume(resume_data="second")).raw_result == [7, 2, "second"]


async def test_a_loop_that_suspends_gets_each_iterations_own_input(register) -> None:
    workflow = create_workflow(id="w").dountil(add, lambda ctx: ctx.input_data >= 3)
    await register(workflow)
    run = await workflow.create_run()
    result, payloads = await run.start(0), []
    while result.status == "suspended":
        payloads.append(result.steps["add"].payload)
        result = await run.resume(resume_data={"by": 1})
    assert (payloads, result.raw_result) == ([0, 1, 2], 3)


async def test_a_nested_workflow_in_a_loop_is_resumed_in_a_later_iteration(register) -> None:
    inner = create_workflow(id="inner").then(add).commit()
    workflow = create_workflow(id="w").dowhile(inner, lambda ctx: ctx.input_data < 3)
    await register(workflow)
    run = await workflow.create_run()
    result, inputs = await run.start(0), []
    while result.status == "suspended":
        inputs.append(result.suspend_payload["inner"]["ask"])
        result = await run.resume(step=[inner, add], resume_data={"by": 1})
    assert (inputs, result.raw_result) == ([0, 1, 2], 3)


async def test_two_nested_workflows_one_after_the_other(register) -> None:
    first = create_workflow(id="first").then(add).commit()
    second = create_workflow(id="second").then(add).commit()
    workflow = create_workflow(id="w").then(first).then(second)
    await register(workflow)
    run = await suspended(workflow, 1)
    result = await run.resume(["first", "add"], {"by": 1})
    assert (result.status, result.suspended) == ("suspended", [["second", "add"]])
    assert (await run.resume("second.add", {"by": 10})).raw_result == 12


async def test_deep_nesting_reports_the_path_and_runs_nothing_again(register) -> None:
    ran: list[str] = []

    def passing(id: str) -> Any:
        async def work(ctx: StepContext[Any]) -> Any:
            ran.append(id)
            return ctx.input_data

        return create_step(id=id, execute=work)

    a = create_workflow(id="a").then(passing("p")).then(add).commit()
    b = create_workflow(id="b").then(passing("q")).then(a).commit()
    c = create_workflow(id="c").then(b).commit()
    workflow = create_workflow(id="w").then(c)
    await register(workflow)
    run = await workflow.create_run()
    result = await run.start(1)
    assert result.suspended == [["c", "b", "a", "add"]]
    assert result.steps["c"].suspend_payload["__workflow_meta"]["path"] == ["b", "a", "add"]
    assert result.suspend_payload == {"c": {"ask": 1}}
    assert (await run.resume(result.suspended[0], {"by": 1})).raw_result == 2
    assert ran == ["q", "p"]


async def test_every_suspended_step_inside_is_reported(register) -> None:
    inner = create_workflow(id="inner").parallel([clone_step(add, id="x"), clone_step(add, id="y")]).commit()
    workflow = create_workflow(id="w").parallel([inner, add])
    await register(workflow)
    run = await workflow.create_run()
    result = await run.start(1)
    assert sorted(result.suspended) == [["add"], ["inner", "x"], ["inner", "y"]]
    with pytest.raises(AmbiguousStepError, match=r"\[inner.x\], \[inner.y\]"):
        await run.resume("inner", {"by": 1})
    stored = await workflow.get_workflow_run_by_id(run.run_id)
    waits = [id for id, record in stored.steps.items() if record.status == "suspended"]
    assert sorted(waits) == ["add", "inner.x", "inner.y"]
    for path in ("inner.y", "add", "inner.x"):
        result = await run.resume(path, {"by": 1})
    assert result.raw_result == {"inner": {"x": 2, "y": 2}, "add": 2}


async def test_a_nested_step_in_a_branch_goes_on_in_its_arm_alone(register) -> None:
    ran: list[str] = []

    def arm(id: str) -> Any:
        async def work(ctx: StepContext[Any]) -> Any:
            ran.append(id)
            return ctx.input_data

        return create_workflow(id=id).then(create_step(id=f"{id}-step", execute=work)).then(add).commit()

    arms = [(lambda ctx: False, arm("first")), (lambda ctx: True, arm("second"))]
    workflow = create_workflow(id="w").then(add).branch(arms)
    await register(workflow)
    run = await suspended(workflow, 1)
    assert (await run.resume(resume_data={"by": 1})).suspended == [["second", "add"]]
    result = await run.resume(resume_data={"by": 1})
    assert (result.raw_result, ran, list(result.steps)) == ({"second": 3}, ["second"], ["add", "second"])


async def test_a_wrong_place_is_refused_and_the_message_names_those_that_wait(register) -> None:
    workflow = create_workflow(id="w").then(add)
    await register(workflow)
    run = await suspended(workflow, 1)
    with pytest.raises(NotSuspendedError, match=r'step "nope" was not suspended. .*\[add\]'):
        await run.resume("nope", {"by": 1})
    with pytest.raises(NotSuspendedError, match=r"labeled 'nope' .*\[for-1\]"):
        await run.resume(label="nope", resume_data={"by": 1})
    await workflow.delete_workflow_run_by_id(run.run_id)
    with pytest.raises(RunNotFoundError):
        await run.resume(resume_data={"by": 1})


async def test_whoever_sees_the_suspension_may_resume_at_once(register) -> None:
    workflow = create_workflow(id="w").then(add).map(lambda ctx: ctx.input_data)
    await register(workflow)
    run = await workflow.create_run()
    stream = run.stream(1, close_on_suspend=False)
    async for event in stream:
        if event.type == "workflow-step-suspended":
            resumed = asyncio.create_task(run.resume(resume_data={"by": 1}))
    assert (await resumed).raw_result == 2
    assert (stream.status, (await stream.result()).status) == ("success", "success")


async def test_of_two_resumes_at_once_the_second_takes_no_later_turn(register) -> None:
    workflow = create_workflow(id="w").dountil(add, lambda ctx: ctx.input_data >= 3)
    await register(workflow)
    run = await suspended(workflow, 0)
    calls = [run.resume(resume_data={"by": 1}) for _ in range(3)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    won = [o for o in outcomes if not isinstance(o, BaseException)]
    assert (len(won), won[0].steps["add"].payload) == (1, 1)
    refused = [o for o in outcomes if isinstance(o, AlreadyClaimedError | NotSuspendedError)]
    assert len(refused) == 2


async def test_an_async_resume_answers_at_once_and_a_stream_tells_its_leg(register) -> None:
    workflow = create_workflow(id="w").then(add).then(clone_step(add, id="more"))
    await register(workflow)
    run = await suspended(workflow, 1)
    stream = run.resume_stream(resume_data={"by": 1})
    told = [(e.type, e.payload.get("id")) async for e in stream]
    assert told == [
        ("workflow-start", None), ("workflow-step-start", "add"), ("workflow-step-result", "add"),
        ("workflow-step-start", "more"), ("workflow-step-suspended", "more"), ("workflow-finish", None),
    ]  # fmt: skip
    assert await run.resume_async(resume_data={"by": 1}) == run.run_id
    assert (await run.observe_stream().result()).raw_result == 3
