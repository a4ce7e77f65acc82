"""People and other systems answer: suspensions as applications use them, from the question to the end."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import pytest
from pydantic import BaseModel

from flowctl import ValidationError, create_step, create_workflow
from tests.workflows.making import Ran, start

pytestmark = pytest.mark.every_storage


class Request(BaseModel):
    approval_required: bool
    requested_by: str
    amount: int


class Answer(BaseModel):
    user_input: str


async def asked(ctx: Any, payload: Any = None, **options: Any) -> Any:
    """The resume data; asks for it first."""
    return ctx.resume_data if ctx.resume_data is not None else await ctx.suspend(payload, **options)


async def test_a_suspension_stops_the_run_and_nothing_after_it_runs(register) -> None:
    ran = Ran()

    async def ask(ctx: Any) -> Any:
        ctx.set_state({"value": f"{ctx.state['value']}-modified"})
        return await asked(ctx, {"reason": "waiting for approval"})

    workflow = create_workflow(id="w").then(ran.step("1")).then(ran.step("2", ask)).then(ran.step("3"))
    await register(workflow)
    result = await start(workflow, {}, initial_state={"value": "test"})
    assert (result.status, ran, "3" in result.steps) == ("suspended", ["1", "2"], False)
    record = result.steps["2"]
    assert (record.status, record.suspend_payload) == ("suspended", {"reason": "waiting for approval"})
    assert (result.steps["1"].status, result.state) == ("success", {"value": "test-modified"})


async def test_what_is_asked_is_checked_by_its_schema(register) -> None:
    request = Request(approval_required=True, requested_by="user-123", amount=500)
    ran = Ran()
    good = ran.step("good", lambda ctx: asked(ctx, request), suspend_schema=Request)
    bad = ran.step("bad", lambda ctx: asked(ctx, {"amount": "much"}), suspend_schema=Request)
    workflow = create_workflow(id="w").then(good).then(bad)
    await register(workflow)
    run = await workflow.create_run()
    assert (await run.start()).suspend_payload == {"good": request.model_dump()}
    result = await run.resume(resume_data={"ok": True})
    assert (result.status, result.steps["good"].output) == ("failed", {"ok": True})
    assert "Step suspend data validation failed" in result.error.message


async def test_a_step_that_was_never_suspended_has_no_suspend_data_and_a_resumed_one_has(register) -> None:
    async def process(ctx: Any) -> str:
        if ctx.input_data["ask"] and ctx.resume_data is None:
            await ctx.suspend({"reason": "User confirmation required"})
        said = ctx.suspend_data["reason"] if ctx.suspend_data else "No suspend data"
        return f"{ctx.input_data['value']}: {said}"

    workflow = create_workflow(id="w").then(Ran().step("process", process))
    await register(workflow)
    assert (await start(workflow, {"value": "test", "ask": False})).raw_result == "test: No suspend data"
    run = await workflow.create_run()
    await run.start({"value": "test", "ask": True})
    assert (await run.resume(resume_data={})).raw_result == "test: User confirmation required"


async def test_two_answers_in_parallel_each_reach_their_step(register) -> None:
    ran = Ran()
    add = ran.step("add", lambda ctx: _with(ctx, lambda n, answer: n + answer["increment"]))
    times = ran.step("times", lambda ctx: _with(ctx, lambda n, answer: n * answer["multiplier"]))
    workflow = create_workflow(id="w").parallel([add, times])
    await register(workflow)
    run = await workflow.create_run()
    assert len((await run.start(10)).suspended) == 2
    result = await run.resume("add", {"increment": 5})
    assert (result.status, result.suspended) == ("suspended", [["times"]])
    assert (await run.resume("times", {"multiplier": 3})).raw_result == {"add": 15, "times": 30}
    assert sorted(ran) == ["add", "add", "times", "times"]


async def _with(ctx: Any, combine: Any) -> Any:
    return combine(ctx.input_data, await asked(ctx))


async def test_a_map_between_two_suspensions_feeds_the_second_step_not_its_answer(register) -> None:
    ran = Ran()
    prompt = ran.step("prompt", asked, resume_schema=Answer)
    tone = ran.step("tone", lambda ctx: {"score": 0.8, "complete": 0.7, "of": ctx.input_data["user_input"]})

    async def improve(ctx: Any) -> Any:
        answer = await asked(ctx, {"current": ctx.input_data["score"]})
        return {key: (answer[key] + ctx.input_data[key]) / 2 for key in ("score", "complete")}

    improved = ran.step("improve", improve)
    workflow = create_workflow(id="w").then(prompt).then(tone)
    workflow.map({"score": {"step": tone, "path": "score"}, "complete": {"step": tone, "path": "complete"}})
    await register(workflow.then(improved))
    run = await workflow.create_run()
    await run.start({"input": "test"})
    result = await run.resume("prompt", {"user_input": "input for resumption"})
    assert result.steps["prompt"].output == {"user_input": "input for resumption"}
    assert result.suspend_payload == {"improve": {"current": 0.8}}
    result = await run.resume(improved, {"score": 0.9, "complete": 0.8})
    assert {key: round(value, 3) for key, value in result.raw_result.items()} == {
        "score": 0.85,
        "complete": 0.75,
    }
    assert ran == ["prompt", "prompt", "tone", "improve", "improve"]


async def test_items_are_answered_by_index_while_others_begin(register) -> None:
    async def pick(ctx: Any) -> int:
        return ctx.input_data + (11 if ctx.input_data <= 5 else (await asked(ctx))["by"])

    ran = Ran()
    workflow = create_workflow(id="w").foreach(ran.step("pick", pick), concurrency=3)
    await register(workflow)
    run = await workflow.create_run()
    await run.start([22, 1, 333, 444, 1000])
    statuses = []
    for index, by in [(2, 5), (0, 3), (3, 2), (4, 8)]:
        result = await run.resume("pick", {"by": by}, for_each_index=index)
        statuses.append(result.status)
    assert statuses == ["suspended", "suspended", "suspended", "success"]
    assert (result.raw_result, sum(result.raw_result)) == ([25, 12, 338, 446, 1008], 1829)


@pytest.mark.parametrize("by", ["objects", "ids", "workflow", "found"])
async def test_a_nested_step_is_answered_however_it_is_named(register, by: str) -> None:
    ran = Ran()
    other = ran.step("other", asked)
    inner = create_workflow(id="inner").then(ran.step("begin", lambda ctx: ctx.input_data + 1)).then(other)
    inner.then(ran.step("final", lambda ctx: ctx.get_step_result("begin") + ctx.input_data)).commit()
    workflow = create_workflow(id="w").then(inner).then(ran.step("last"))
    await register(workflow)
    run = await workflow.create_run()
    assert (await run.start(0)).suspended == [["inner", "other"]]
    named = {"objects": [inner, other], "ids": ["inner", "other"], "workflow": inner, "found": None}[by]
    result = await run.resume(named, 26)
    assert (result.status, result.steps["inner"].output, result.raw_result) == ("success", 27, 27)
    assert ran == ["begin", "other", "other", "final", "last"]


async def test_after_a_nested_answer_in_a_branch_no_other_arm_runs_and_the_end_runs_once(register) -> None:
    ran = Ran()

    def arm(name: str) -> Any:
        ask = ran.step(f"{name}-date", asked, resume_schema=datetime)
        shape = ran.step(f"{name}-done", lambda ctx: {"processed": name, "date": ctx.input_data})
        return create_workflow(id=name).then(ask).then(shape).commit()

    def chosen(name: str) -> Any:
        return (lambda ctx: ctx.input_data == name, arm(name))

    workflow = create_workflow(id="w").then(ran.step("select", asked))
    workflow.branch([chosen("first"), chosen("second"), chosen("third")])
    workflow.map({"done": {"step": ["first", "second", "third"]}}).then(ran.step("final"))
    await register(workflow)
    run = await workflow.create_run()
    await run.start("items")
    assert (await run.resume("select", "second")).suspended == [["second", "second-date"]]
    result = await run.resume(["second", "second-date"], datetime(2030, 1, 1))  # noqa: DTZ001 - as users write it
    done = {"processed": "second", "date": "2030-01-01T00:00:00"}
    assert (result.status, result.raw_result) == ("success", {"done": done})
    assert ran == ["select", "select", "second-date", "second-date", "second-done", "final"]
    assert "first" not in result.steps


async def test_the_request_context_that_was_given_at_the_start_is_there_on_resume(register) -> None:
    ran = Ran()
    workflow = create_workflow(id="w").then(ran.step("ask", asked))
    workflow.then(ran.step("read", lambda ctx: ctx.request_context.get("injectedKey")))
    await register(workflow)
    run = await workflow.create_run()
    await run.start(request_context={"injectedKey": "injected-value"})
    again = await workflow.create_run(run_id=run.run_id)
    assert (await again.resume(resume_data={"data": "test"})).raw_result == "injected-value"


async def test_what_steps_add_to_the_request_context_lasts_through_suspensions(register) -> None:
    ran = Ran()

    def noting(text: str) -> Any:
        async def note(ctx: Any) -> Any:
            ctx.request_context.set("responses", [*ctx.request_context.get("responses"), text])
            return ctx.request_context.get("responses") if text == "second" else await asked(ctx)

        return note

    async def first(ctx: Any) -> Any:
        if ctx.resume_data is None:
            await noting("first")(ctx)
        return ctx.resume_data

    workflow = create_workflow(id="w").then(ran.step("ask", first)).then(ran.step("add", noting("second")))
    await register(workflow)
    run = await workflow.create_run()
    await run.start(request_context={"responses": []})
    result = await run.resume(resume_data={"userInput": "x"}, request_context={})
    assert result.raw_result == ["first", "second"]


async def test_a_resource_keeps_its_runs_over_a_resume(register) -> None:
    workflow = create_workflow(id="w").then(Ran().step("ask", asked))
    await register(workflow)
    run = await workflow.create_run(resource_id="user-789")
    await run.start()
    before = await workflow.get_workflow_run_by_id(run.run_id)
    await (await workflow.create_run(run_id=run.run_id)).resume(resume_data={"ok": True})
    after = await workflow.get_workflow_run_by_id(run.run_id)
    assert (before.resource_id, after.resource_id) == ("user-789", "user-789")
    listed = await workflow.list_workflow_runs(resource_id="user-789")
    assert ([r.run_id for r in listed.runs], listed.total) == ([run.run_id], 1)


async def test_a_wrong_answer_is_refused_and_the_right_one_still_counts(register) -> None:
    class Value(BaseModel):
        value: int

    workflow = create_workflow(id="w").then(Ran().step("ask", _plus, resume_schema=Value))
    await register(workflow)
    run = await workflow.create_run()
    await run.start(1)
    with pytest.raises(ValidationError, match="Invalid resume data: \n- value: Field required"):
        await run.resume("ask", {"number": 2})
    assert (await run.resume("ask", {"value": 21})).raw_result == 22


async def _plus(ctx: Any) -> int:
    return ctx.input_data + (await asked(ctx)).value


async def test_a_stream_stays_open_over_a_suspension_that_another_task_answers(register) -> None:
    async def ask(ctx: Any) -> Any:
        ctx.writer.write({"type": "custom-event", "payload": {"input": ctx.input_data}})
        return {"modelOutput": "test output"} | await asked(ctx)

    prompt = create_step(id="prompt", resume_schema=dict, execute=ask)
    workflow = create_workflow(id="w").then(prompt)
    await register(workflow)
    run, answers, written = await workflow.create_run(), [], []
    stream = run.stream({"userInput": "test input"}, close_on_suspend=False)
    async for event in stream:
        if event.type == "workflow-step-output":
            written.append(event.payload["output"])
        if event.type == "workflow-step-suspended":
            answers.append(asyncio.create_task(run.resume("prompt", {"userInput": "resumed"})))
    result = await stream.result()
    record = result.steps["prompt"]
    assert (record.status, record.payload) == ("success", {"userInput": "test input"})
    assert record.output == {"modelOutput": "test output", "userInput": "resumed"}
    assert (record.resume_payload, result.input) == ({"userInput": "resumed"}, {"userInput": "test input"})
    assert record.resumed_at is not None
    custom = {"type": "custom-event", "payload": {"input": {"userInput": "test input"}}}
    assert written == [custom, custom]
    assert (await answers[0]).status == "success"
