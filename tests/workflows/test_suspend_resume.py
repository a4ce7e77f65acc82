"""Suspending and resuming: what is asked, who may answer, where the run goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from flowctl import (
    AlreadyClaimedError,
    AmbiguousStepError,
    App,
    NotSuspendedError,
    SQLiteStorage,
    StepContext,
    ValidationError,
    clone_step,
    create_step,
    create_workflow,
    step,
)  # fmt: skip

pytestmark = pytest.mark.every_storage


class Answer(BaseModel):
    approved: bool


async def ask(ctx: StepContext[Any, Answer]) -> str:
    if ctx.resume_data is None:
        await ctx.suspend({"question": f"publish {ctx.input_data}?"}, resume_label=f"ask-{ctx.input_data}")
    return f"{ctx.input_data}: {ctx.resume_data.approved} ({ctx.suspend_data['question']})"


approve = create_step(id="approve", resume_schema=Answer, execute=ask)


@step
async def upper(data: str) -> str:
    return data.upper()


async def test_a_suspended_run_says_what_is_asked_and_goes_on_with_the_answer(register) -> None:
    workflow = create_workflow(id="w").then(upper).then(approve)
    await register(workflow)
    run = await workflow.create_run()
    result = await run.start("post")
    assert (result.status, result.suspended) == ("suspended", [["approve"]])
    assert result.suspend_payload == {"approve": {"question": "publish POST?"}}
    result = await run.resume(step=approve, resume_data={"approved": True})
    assert result.raw_result == "POST: True (publish POST?)"
    assert result.steps["approve"].resume_payload == {"approved": True}


async def test_an_answer_of_the_wrong_shape_consumes_nothing(register) -> None:
    workflow = create_workflow(id="w").then(approve)
    await register(workflow)
    run = await workflow.create_run()
    await run.start("post")
    with pytest.raises(ValidationError, match="Invalid resume data: \n- approved: "):
        await run.resume(resume_data={"approved": "perhaps"})
    assert (await run.resume(resume_data={"approved": False})).status == "success"


async def test_of_two_answers_at_once_one_wins(register) -> None:
    workflow = create_workflow(id="w").then(approve)
    await register(workflow)
    run = await workflow.create_run()
    await run.start("post")
    answers = [run.resume(resume_data={"approved": True}) for _ in range(2)]
    outcomes = await asyncio.gather(*answers, return_exceptions=True)
    refused = [o for o in outcomes if isinstance(o, AlreadyClaimedError | NotSuspendedError)]
    assert len(refused) == 1


async def test_a_run_that_has_ended_cannot_be_resumed(register) -> None:
    workflow = create_workflow(id="w").then(upper)
    await register(workflow)
    run = await workflow.create_run()
    await run.start("post")
    with pytest.raises(NotSuspendedError, match="was not suspended"):
        await run.resume(resume_data={})


async def test_parallel_waits_for_each_of_its_suspended_steps(register) -> None:
    async def ask_too(ctx: StepContext[str, Answer]) -> str:
        return "yes" if ctx.resume_data else await ctx.suspend(resume_label="ask-other")

    other = create_step(id="other", resume_schema=Answer, execute=ask_too)
    workflow = create_workflow(id="w").parallel([approve, upper, other])
    await register(workflow)
    run = await workflow.create_run()
    assert (await run.start("post")).suspended == [["approve"], ["other"]]
    with pytest.raises(AmbiguousStepError, match=r"Multiple suspended steps found: \[approve\], \[other\]"):
        await run.resume(resume_data={"approved": True})
    result = await run.resume("other", {"approved": True})
    assert (result.status, result.suspended) == ("suspended", [["approve"]])
    assert result.resume_labels == {"ask-post": {"stepId": "approve"}}
    with pytest.raises(NotSuspendedError, match=r"Available labels: \[ask-post\]"):
        await run.resume(label="ask-other", resume_data={"approved": True})
    result = await run.resume(label="ask-post", resume_data={"approved": False})
    assert result.raw_result["approve"].startswith("post: False")
    assert result.raw_result["upper"] == "POST"


async def test_a_branch_does_not_choose_again_on_resume(register) -> None:
    asked: list[str] = []

    def condition(ctx: Any) -> bool:
        asked.append(ctx.input_data)
        return True

    workflow = create_workflow(id="w").branch([(condition, approve)])
    await register(workflow)
    run = await workflow.create_run()
    await run.start("post")
    assert (await run.resume(resume_data={"approved": True})).status == "success"
    assert asked == ["post"]


async def test_a_loop_goes_on_in_the_iteration_that_was_suspended(register) -> None:
    async def count(ctx: StepContext[int]) -> int:
        if ctx.resume_data is None:
            await ctx.suspend()
        return ctx.input_data + 1

    workflow = create_workflow(id="w").dountil(
        create_step(id="count", execute=count), lambda ctx: ctx.input_data >= 3
    )
    await register(workflow)
    run = await workflow.create_run()
    result = await run.start(0)
    payloads = [result.steps["count"].payload]
    while result.status == "suspended":
        result = await run.resume(resume_data={"go": True})
        payloads.append(result.steps["count"].payload)
    assert (result.raw_result, payloads) == (3, [0, 1, 2, 2])


@pytest.mark.parametrize("path", ["outer.inner.approve", ["outer", "inner", "approve"], "outer", None])
async def test_a_deeply_nested_step_is_resumed_by_its_path_or_found(register, path: Any) -> None:
    inner = create_workflow(id="inner").then(upper).then(approve).commit()
    outer = create_workflow(id="outer").then(inner).commit()
    workflow = create_workflow(id="w").then(outer).then(clone_step(upper, id="last"))
    await register(workflow)
    run = await workflow.create_run()
    result = await run.start("post")
    assert result.suspended == [["outer", "inner", "approve"]]
    result = await run.resume(path, {"approved": True})
    assert result.raw_result == "POST: TRUE (PUBLISH POST?)"


async def test_foreach_resumes_one_item_or_all(register) -> None:
    workflow = create_workflow(id="w").foreach(approve, concurrency=3)
    await register(workflow)
    run = await workflow.create_run()
    assert (await run.start(["a", "b", "c"])).suspended == [["approve"]]
    result = await run.resume(for_each_index=1, resume_data={"approved": False})
    assert result.status == "suspended"
    result = await run.resume(resume_data={"approved": True})
    assert [text.split(" ")[1] for text in result.raw_result] == ["True", "False", "True"]


async def test_a_run_is_resumed_by_another_app_from_the_file(tmp_path: Path) -> None:
    def make() -> Any:
        workflow = create_workflow(id="w").then(upper).then(approve)
        App(workflows=[workflow], storage=SQLiteStorage(tmp_path / "runs.db"), engine="local")
        return workflow

    first = make()
    run = await first.create_run(run_id="r1", resource_id="user-1")
    await run.start("post", request_context={"tenant": "t"})
    await first.app.stop()
    second = make()
    again = await second.create_run(run_id="r1")
    result = await again.resume(resume_data={"approved": True})
    assert (result.status, again.resource_id) == ("success", "user-1")
    await second.app.stop()
