"""Steps: how they are made, retried, ended early, and what their context offers."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from pydantic import BaseModel

from flowctl import (
    DefinitionError,
    NonRetriableError,
    StepContext,
    StillRunningError,
    create_step,
    create_workflow,
    step,
)  # fmt: skip


async def run(workflow: Any, input_data: Any = None, **options: Any) -> Any:
    return await (await workflow.create_run()).start(input_data, **options)


def failing(times: int, error: type[Exception] = ValueError) -> tuple[Any, list[int]]:
    tries: list[int] = []

    async def work(ctx: StepContext[Any]) -> int:
        tries.append(ctx.retry_count)
        if len(tries) <= times:
            raise error("not yet")
        return len(tries)

    return work, tries


async def test_a_step_is_tried_again_as_often_as_it_says(register) -> None:
    work, tries = failing(2)
    workflow = create_workflow(id="w", retry_config={"attempts": 9}).then(
        create_step(id="s", execute=work, retries=2)
    )
    await register(workflow)
    assert (await run(workflow)).raw_result == 3
    assert tries == [0, 1, 2]


async def test_without_retries_the_first_failure_fails_the_run(register) -> None:
    work, tries = failing(1)
    workflow = create_workflow(id="w").then(create_step(id="s", execute=work))
    await register(workflow)
    result = await run(workflow)
    assert (result.status, result.steps["s"].status, tries) == ("failed", "failed", [0])


async def test_a_failing_step_fails_alone_and_its_record_keeps_what_it_got(register) -> None:
    work, tries = failing(1)
    first = create_step(id="first", execute=lambda ctx: {"from": "first"})
    workflow = create_workflow(id="w").then(first).then(create_step(id="s", execute=work))
    await register(workflow)
    result = await run(workflow, {})
    assert (result.status, result.input, result.error.message) == ("failed", {}, "not yet")
    record = result.steps["s"]
    assert (record.status, record.payload, record.output) == ("failed", {"from": "first"}, None)
    assert (record.error.name, result.steps["first"].status, tries) == ("ValueError", "success", [0])


async def test_an_error_that_says_so_is_not_tried_again(register) -> None:
    work, tries = failing(1, NonRetriableError)
    workflow = create_workflow(id="w").then(create_step(id="s", execute=work, retries=5))
    await register(workflow)
    assert (await run(workflow)).status == "failed"
    assert tries == [0]


async def test_errors_keep_their_attributes_and_causes(register) -> None:
    class RateLimited(Exception):
        def __init__(self) -> None:
            super().__init__("slow down")
            self.status_code = 429

    @step
    async def call(data: Any) -> None:
        try:
            raise ConnectionError("refused")
        except ConnectionError as err:
            raise RateLimited from err

    workflow = create_workflow(id="w").then(call)
    await register(workflow)
    error = (await run(workflow)).error
    assert (error.name, error.message, error.status_code) == ("RateLimited", "slow down", 429)
    assert (error.cause.name, error.cause.message) == ("ConnectionError", "refused")


async def test_a_plain_def_runs_in_a_thread(register) -> None:
    @step
    def where(data: Any) -> bool:
        return threading.current_thread() is threading.main_thread()

    workflow = create_workflow(id="w").then(where)
    await register(workflow)
    assert (await run(workflow)).raw_result is False


async def test_a_decorated_step_reads_its_schemas_from_annotations() -> None:
    class In(BaseModel):
        a: int

    @step(retries=2, id="renamed")
    async def work(ctx: StepContext[int]) -> str:
        """Says the number."""
        return str(ctx.input_data)

    assert (work.id, work.retries, work.description) == ("renamed", 2, "Says the number.")
    assert work.schemas.input is not None
    assert work.schemas.input.type is int
    assert work.schemas.output is not None
    assert work.schemas.output.type is str


async def test_bail_ends_the_run_with_success_and_its_result(register) -> None:
    @step
    async def first(data: str, ctx: StepContext) -> str:
        if data == "stop":
            await ctx.bail({"ended": "early"})
        return data

    @step
    async def second(data: str) -> str:
        return data + "!"

    workflow = create_workflow(id="w").then(first).then(second)
    await register(workflow)
    result = await run(workflow, "stop")
    assert (result.status, result.raw_result, "second" in result.steps) == (
        "success",
        {"ended": "early"},
        False,
    )
    assert (await run(workflow, "go")).raw_result == "go!"


async def test_bail_in_a_nested_workflow_ends_only_that_one(register) -> None:
    @step
    async def leave(data: Any, ctx: StepContext) -> None:
        await ctx.bail("inner")

    @step
    async def after(data: Any) -> str:
        return f"outer saw {data}"

    inner = create_workflow(id="inner").then(leave).then(after).commit()
    outer = create_workflow(id="outer").then(inner).then(after)
    await register(outer)
    assert (await run(outer)).raw_result == "outer saw inner"


async def test_state_is_merged_when_a_step_ends_and_seen_by_the_next(register) -> None:
    seen: list[Any] = []

    @step
    async def write(data: Any, ctx: StepContext) -> None:
        ctx.set_state({"count": ctx.state["count"] + 1})
        seen.append(ctx.state["count"])

    @step
    async def read(data: Any, ctx: StepContext) -> Any:
        return ctx.state

    workflow = create_workflow(id="w").then(write).then(read)
    await register(workflow)
    result = await run(workflow, initial_state={"count": 0, "kept": True})
    assert (seen, result.raw_result) == ([0], {"count": 1, "kept": True})


async def test_the_request_context_travels_and_changes_reach_later_steps(register) -> None:
    @step
    async def write(data: Any, ctx: StepContext) -> None:
        ctx.request_context.set("seen", [*ctx.request_context.get("seen"), "first"])

    @step
    async def read(data: Any, ctx: StepContext) -> Any:
        return (ctx.request_context.get("seen"), ctx.request_context.get("absent"))

    workflow = create_workflow(id="w").then(write).then(read)
    await register(workflow)
    assert (await run(workflow, request_context={"seen": []})).raw_result == [["first"], None]


async def test_a_step_is_given_its_run_a_context_and_a_signal(register) -> None:
    seen: list[Any] = []

    @step
    async def look(data: Any, ctx: StepContext) -> None:
        seen.append((ctx.run_id, dict(ctx.request_context), ctx.resume_data, ctx.suspend_data))
        seen.append((ctx.abort_signal.is_set(), callable(ctx.abort), callable(ctx.writer.write)))

    workflow = create_workflow(id="w").then(look)
    await register(workflow)
    result = await run(workflow)
    assert seen == [(result.run_id, {}, None, None), (False, True, True)]
    assert (result.status, bool(result.run_id)) == ("success", True)


async def test_a_failure_is_logged_with_the_step_and_the_workflow(register, caplog) -> None:
    work, _ = failing(1)
    await register(workflow := create_workflow(id="w").then(create_step(id="fragile", execute=work)))
    await run(workflow)
    [line] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert line.getMessage() == "Step 'fragile' of workflow 'w' failed: not yet"
    assert line.exc_info is not None


async def test_an_error_of_flowctl_itself_is_kept_like_any_other(register) -> None:
    async def refuse(ctx: StepContext[Any]) -> None:
        raise NonRetriableError("Step execution failed.", category="USER", details={"field": "email"})

    await register(workflow := create_workflow(id="w").then(create_step(id="s", execute=refuse)))
    result = await run(workflow)
    stored = await workflow.get_workflow_run_by_id(result.run_id)
    assert stored.steps["s"].error.to_json() == {
        "name": "NonRetriableError", "message": "Step execution failed.", "category": "USER",
        "details": {"field": "email"},
    }  # fmt: skip


async def test_a_workflow_that_was_not_committed_makes_no_run() -> None:
    @step
    async def ok(data: Any) -> None: ...

    workflow = create_workflow(id="w").then(ok)
    assert workflow.committed is False
    with pytest.raises(DefinitionError, match="Uncommitted step flow changes detected"):
        await workflow.create_run()
    with pytest.raises(DefinitionError, match="Execution flow of workflow is not defined"):
        await create_workflow(id="empty").create_run()


async def test_a_leave_that_was_not_awaited_fails_the_step(register) -> None:
    @step
    async def forgetful(data: Any, ctx: StepContext) -> None:
        ctx.bail("lost")

    workflow = create_workflow(id="w").then(forgetful)
    await register(workflow)
    assert "not awaited" in (await run(workflow)).error.message


async def test_suspend_in_a_plain_def_fails_and_says_what_it_needs(register) -> None:
    @step
    def plain(data: Any, ctx: StepContext) -> None:
        ctx.suspend()

    workflow = create_workflow(id="w").then(plain)
    await register(workflow)
    assert "async def" in (await run(workflow)).error.message


async def test_a_suspend_inside_a_task_group_suspends_the_step(register) -> None:
    @step
    async def grouped(data: Any, ctx: StepContext) -> str:
        async with asyncio.TaskGroup() as group:
            group.create_task(ctx.suspend({"why": "ask"}))
        return "unreachable"

    workflow = create_workflow(id="w").then(grouped)
    await register(workflow)
    result = await run(workflow)
    assert (result.status, result.suspend_payload) == ("suspended", {"grouped": {"why": "ask"}})


async def test_callbacks_are_done_before_start_returns_and_may_raise(register) -> None:
    infos: list[Any] = []

    async def on_finish(info: Any) -> None:
        await asyncio.sleep(0)
        infos.append(info)
        raise RuntimeError("ignored")

    @step
    async def ok(data: str) -> str:
        return data

    workflow = create_workflow(id="w", input_schema=str, on_finish=on_finish).then(ok)
    await register(workflow)
    result = await run(workflow, "x")
    assert result.status == "success"
    assert (infos[0].status, infos[0].result, infos[0].get_init_data()) == ("success", "x", "x")


async def test_a_run_starts_once(register) -> None:
    @step
    async def ok(data: Any) -> None: ...

    workflow = create_workflow(id="w").then(ok)
    await register(workflow)
    run = await workflow.create_run()
    await run.start()
    with pytest.raises(StillRunningError):
        await run.start()


async def test_a_failed_run_shows_the_traceback_of_the_users_code(register) -> None:
    async def breaks(ctx):
        raise LookupError("no such thing")

    inner = create_workflow(id="inner").then(create_step(id="s", execute=breaks)).commit()
    workflow = create_workflow(id="w").then(inner)
    app = await register(workflow)
    result = await run(workflow)
    for error in (result.error, result.steps["inner"].error):
        assert "in breaks" in error.stack
        assert error.stack.endswith("LookupError: no such thing\n")
    assert "in breaks" not in str(await app.storage.load_snapshot("w", result.run_id))
