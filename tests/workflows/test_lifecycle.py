"""The life of a run: callbacks, step by step, abort and cancel, what is told of errors."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from flowctl import NotSuspendedError, StepContext, create_step, create_workflow, step

pytestmark = pytest.mark.every_storage


@step
async def ok(data: Any) -> Any:
    return data


def broken(error: BaseException | None = None) -> Any:
    async def work(ctx: StepContext[Any]) -> None:
        raise error or RuntimeError("Test error")

    return create_step(id="broken", execute=work)


async def run(workflow: Any, input_data: Any = None, **options: Any) -> Any:
    return await (await workflow.create_run(resource_id="user-1")).start(input_data, **options)


class Told:
    """Remembers what the callbacks of a workflow were given."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def options(self) -> dict[str, Any]:
        def teller(name: str) -> Any:
            async def tell(info: Any) -> None:
                await asyncio.sleep(0)
                self.calls.append((name, info))

            return tell

        return {name: teller(name) for name in ("on_start", "on_finish", "on_error")}

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.calls]


async def test_callbacks_are_told_of_a_success(register) -> None:
    async def count(ctx: StepContext[Any]) -> str:
        ctx.set_state({"counter": ctx.state["counter"] + 1})
        ctx.request_context.set("seen", True)
        return "done"

    told = Told()
    workflow = create_workflow(id="w", **told.options()).then(create_step(id="count", execute=count))
    app = await register(workflow)
    result = await run(workflow, {"id": 7}, initial_state={"counter": 0}, request_context={"key": "value"})
    assert told.names == ["on_start", "on_finish"]
    info = told.calls[1][1]
    assert (info.status, info.result, info.error, info.workflow_id) == ("success", "done", None, "w")
    assert (info.run_id, info.resource_id, info.state) == (result.run_id, "user-1", {"counter": 1})
    assert (info.get_init_data(), info.steps["count"].output) == ({"id": 7}, "done")
    assert (info.request_context.get("key"), info.request_context.get("seen")) == ("value", True)
    assert info.app is app
    assert callable(info.logger.info)


async def test_callbacks_are_told_of_a_failure_first_the_end_then_the_error(register) -> None:
    told = Told()
    workflow = create_workflow(id="w", **told.options()).then(broken())
    app = await register(workflow)
    options = {"initial_state": {"counter": 0}, "request_context": {"errorKey": "errorValue"}}
    result = await run(workflow, {"id": 7}, **options)
    assert told.names == ["on_start", "on_finish", "on_error"]
    for _, info in told.calls[1:]:
        assert (info.status, info.error.message, info.get_init_data()) == ("failed", "Test error", {"id": 7})
        assert (info.run_id, info.workflow_id, info.resource_id) == (result.run_id, "w", "user-1")
        assert (info.state, info.request_context.get("errorKey")) == ({"counter": 0}, "errorValue")
        assert (info.app, info.steps["broken"].status) == (app, "failed")
        assert callable(info.logger.error)


async def test_an_on_start_that_raises_refuses_the_start_and_the_run_stays_pending(register) -> None:
    refusals = [PermissionError("not today")]

    def on_start(info: Any) -> None:
        if refusals:
            raise refusals.pop()

    workflow = create_workflow(id="w", on_start=on_start).then(ok)
    await register(workflow)
    run = await workflow.create_run()
    with pytest.raises(PermissionError, match="not today"):
        await run.start(1)
    assert (await workflow.get_workflow_run_by_id(run.run_id)).status == "pending"
    assert (await run.start(1)).status == "success"


async def test_callbacks_are_told_of_a_suspension_and_of_a_cancellation_but_not_of_a_pause(register) -> None:
    async def ask(ctx: StepContext[Any]) -> None:
        await ctx.suspend({"why": "ask"})

    told = Told()
    workflow = create_workflow(id="w", **told.options()).then(ok).then(create_step(id="ask", execute=ask))
    await register(workflow)
    run = await workflow.create_run()
    assert (await run.start(1, per_step=True)).status == "paused"
    assert told.names == ["on_start"]
    assert (await run.resume()).status == "suspended"
    await run.cancel()
    assert [(name, info.status) for name, info in told.calls[1:]] == [
        ("on_finish", "suspended"),
        ("on_finish", "canceled"),
    ]


async def test_what_callbacks_raise_is_logged_and_changes_nothing(register, caplog) -> None:
    def burst(info: Any) -> None:
        raise RuntimeError(f"after {info.status}")

    workflow = create_workflow(id="w", on_finish=burst, on_error=burst).then(broken())
    await register(workflow)
    result = await run(workflow)
    assert (result.status, result.error.message) == ("failed", "Test error")
    assert caplog.text.count("RuntimeError: after failed") == 2


async def test_nested_workflows_call_back_too(register) -> None:
    told = Told()
    nested = create_workflow(id="inner", **told.options()).then(ok).commit()
    workflow = create_workflow(id="w").then(nested)
    await register(workflow)
    await run(workflow, 1)
    assert [(name, info.workflow_id, info.status) for name, info in told.calls] == [
        ("on_start", "inner", "running"),
        ("on_finish", "inner", "success"),
    ]


async def test_a_run_goes_on_step_by_step(register) -> None:
    calls: list[str] = []

    def named(id: str) -> Any:
        async def work(ctx: StepContext[Any]) -> str:
            calls.append(id)
            return id

        return create_step(id=id, execute=work)

    inner = create_workflow(id="inner").then(named("c")).then(named("d")).commit()
    workflow = create_workflow(id="w").then(named("start")).parallel([named("a"), named("b")]).then(inner)
    await register(workflow)
    run = await workflow.create_run()
    result = await run.start(1, per_step=True)
    seen = [list(calls)]
    while result.status == "paused":
        assert result.result is None
        result = await run.resume(per_step=True)
        seen.append(list(calls))
    assert [len(step) for step in seen] == [1, 2, 3, 4, 5, 5, 5]
    assert (result.status, result.raw_result, calls) == ("success", "d", ["start", "a", "b", "c", "d"])


async def test_a_paused_run_goes_on_to_its_end_and_names_no_step(register) -> None:
    workflow = (
        create_workflow(id="w")
        .then(ok)
        .map(lambda ctx: ctx.input_data + 1)
        .map(lambda ctx: ctx.input_data * 2)
    )
    await register(workflow)
    run = await workflow.create_run()
    result = await run.start(1, per_step=True)
    assert (result.status, list(result.steps)) == ("paused", ["ok"])
    with pytest.raises(NotSuspendedError):
        await run.resume("ok")
    assert (await run.resume()).raw_result == 4
    types = [event.type async for event in run.observe_stream()]
    assert types.count("workflow-paused") == 1


@pytest.mark.parametrize("first", ["then", "parallel", "nested"])
async def test_per_step_runs_one_step_and_says_that_the_run_is_paused(register, first: str) -> None:
    calls: list[str] = []

    def named(id: str) -> Any:
        async def work(ctx: StepContext[Any]) -> Any:
            calls.append(id)
            return {"value": f"{id}-done"}

        return create_step(id=id, execute=work)

    workflow = create_workflow(id="w")
    match first:
        case "then":
            workflow.then(named("a")).then(named("b"))
        case "parallel":
            workflow.parallel([named("a"), named("b")]).then(named("c"))
        case _:
            workflow.then(named("a")).then(create_workflow(id="inner").then(named("b")).commit()).then(
                named("c")
            )
    await register(workflow)
    result = await run(workflow, {}, per_step=True)
    assert (result.status, result.result, calls) == ("paused", None, ["a"])
    assert {id: record.output for id, record in result.steps.items()} == {"a": {"value": "a-done"}}


async def test_abort_ends_the_run_as_canceled_after_the_step(register) -> None:
    async def leave(ctx: StepContext[Any]) -> bool:
        ctx.abort()
        return ctx.abort_signal.is_set()

    told = Told()
    workflow = create_workflow(id="w", **told.options()).then(create_step(id="leave", execute=leave)).then(ok)
    await register(workflow)
    run = await workflow.create_run()
    result = await run.start(1)
    assert (result.status, list(result.steps), result.steps["leave"].output) == ("canceled", ["leave"], True)
    assert told.names == ["on_start", "on_finish"]
    assert [event.type async for event in run.observe_stream()][-1] == "workflow-canceled"


async def test_a_step_that_aborts_and_then_fails_is_not_tried_again_and_the_run_is_canceled(register) -> None:
    tries: list[int] = []

    async def leave(ctx: StepContext[Any]) -> None:
        tries.append(ctx.retry_count)
        ctx.abort()
        raise ValueError("no use going on")

    workflow = create_workflow(id="w").then(create_step(id="leave", execute=leave, retries=3)).then(ok)
    await register(workflow)
    result = await run(workflow)
    assert (result.status, result.steps["leave"].status, tries) == ("canceled", "failed", [0])


async def test_a_step_in_flight_of_a_canceled_run_finishes_and_counts_for_nothing(register) -> None:
    began, finished = asyncio.Event(), asyncio.Event()

    async def work(ctx: StepContext[Any]) -> str:
        began.set()
        await ctx.abort_signal.wait()
        finished.set()
        return "too late"

    inner = create_workflow(id="inner").then(create_step(id="work", execute=work)).then(ok).commit()
    workflow = create_workflow(id="w").then(inner).then(ok)
    await register(workflow)
    run, other = await workflow.create_run(), await workflow.create_run()
    starting = asyncio.create_task(run.start(1))
    await asyncio.wait_for(began.wait(), 20)
    await run.cancel()
    result = await asyncio.wait_for(starting, 20)
    await asyncio.wait_for(finished.wait(), 20)
    assert (result.status, result.steps["inner"].status) == ("canceled", "canceled")
    assert (await workflow.get_workflow_run_by_id(run.run_id)).status == "canceled"
    assert (await workflow.get_workflow_run_by_id(other.run_id)).status == "pending"


async def test_between_two_steps_a_cancellation_keeps_the_second_from_running(register) -> None:
    ran: list[str] = []

    async def leave(ctx: StepContext[Any]) -> str:
        ran.append("leave")
        await run.cancel()
        return "done"

    async def after(ctx: StepContext[Any]) -> None:
        ran.append("after")

    workflow = create_workflow(id="w").then(create_step(id="leave", execute=leave))
    workflow.then(create_step(id="after", execute=after))
    await register(workflow)
    run = await workflow.create_run()
    result = await asyncio.wait_for(run.start(1), 20)
    assert (result.status, ran, "after" in result.steps) == ("canceled", ["leave"], False)


async def test_a_suspended_run_is_canceled_for_good(register) -> None:
    async def ask(ctx: StepContext[Any]) -> None:
        await ctx.suspend({"reason": "waiting for approval"})

    workflow = create_workflow(id="w").then(ok).then(create_step(id="ask", execute=ask)).then(broken())
    await register(workflow)
    run = await workflow.create_run()
    result = await run.start(1)
    assert (result.status, "broken" in result.steps) == ("suspended", False)
    await run.cancel()
    assert (await workflow.get_workflow_run_by_id(run.run_id)).status == "canceled"
    with pytest.raises(NotSuspendedError):
        await run.resume(resume_data={})


async def test_canceling_what_has_ended_changes_nothing(register) -> None:
    workflow = create_workflow(id="w").then(ok)
    await register(workflow)
    run = await workflow.create_run()
    await run.start(1)
    await run.cancel()
    assert (await workflow.get_workflow_run_by_id(run.run_id)).status == "success"


class RateLimited(Exception):
    def __init__(self) -> None:
        super().__init__("slow down")
        self.status_code, self.response_headers, self.is_retryable = 429, {"retry-after": "60"}, True


async def test_an_error_has_the_traceback_in_results_and_nowhere_else(register) -> None:
    workflow = create_workflow(id="w").then(broken(RateLimited()))
    app = await register(workflow)
    run = await workflow.create_run()
    result = await run.start(1)
    error = result.error
    assert (error.name, error.message, error.status_code) == ("RateLimited", "slow down", 429)
    assert (error.response_headers, error.is_retryable) == ({"retry-after": "60"}, True)
    assert result.steps["broken"].error == error
    assert "raise error or RuntimeError" in error.stack
    stored = await workflow.get_workflow_run_by_id(run.run_id)
    plain = {"name": "RateLimited", "message": "slow down", "status_code": 429,
             "response_headers": {"retry-after": "60"}, "is_retryable": True}  # fmt: skip
    assert (stored.steps["broken"].error.to_json(), stored.error.stack) == (plain, None)
    events = [event.payload async for event in run.observe_stream()]
    snapshot = await app.storage.load_snapshot("w", run.run_id)
    assert "Traceback" not in json.dumps([*events, snapshot], default=dict)


async def test_causes_are_kept_as_a_chain(register) -> None:
    def chain() -> Exception:
        refused, failed = ConnectionError("Network connection refused"), OSError("HTTP request failed")
        failed.__cause__ = refused
        top = RuntimeError("API call failed")
        top.__cause__ = failed
        return top

    workflow = create_workflow(id="w").then(broken(chain()))
    await register(workflow)
    error = (await run(workflow)).steps["broken"].error
    messages = [error.message, error.cause.message, error.cause.cause.message]
    assert messages == ["API call failed", "HTTP request failed", "Network connection refused"]


def ring() -> Exception:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    return first


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(("error", "says"), [(ring(), "first"), (UnspeakableError(), "has no message")])
async def test_an_error_that_leads_back_to_itself_or_cannot_be_shown_fails_its_step(
    register, error, says
) -> None:
    workflow = create_workflow(id="w").then(broken(error))
    await register(workflow)
    result = await run(workflow)
    assert (result.status, result.error.name) == ("failed", type(error).__name__)
    assert says in result.error.message


@pytest.mark.parametrize("error", [asyncio.CancelledError("inner"), SystemExit(3)])
async def test_leaving_by_a_base_exception_fails_the_step(register, error: BaseException) -> None:
    workflow = create_workflow(id="w").then(broken(error))
    await register(workflow)
    result = await run(workflow)
    assert (result.status, result.error.name) == ("failed", type(error).__name__)


async def test_state_is_checked_as_a_whole_and_set_in_parts(register) -> None:
    from pydantic import BaseModel

    class State(BaseModel):
        count: int = 0
        items: list[str] = []

    async def write(ctx: StepContext[Any]) -> None:
        ctx.set_state({"count": ctx.state.count + 1})
        ctx.set_state({"items": ["a"]})
        with pytest.raises(Exception, match="Step state data validation failed: \n- count"):
            ctx.set_state({"count": "many"})

    workflow = create_workflow(id="w", state_schema=State).then(create_step(id="write", execute=write))
    workflow.map(lambda ctx: [ctx.state.count, ctx.state.items])
    await register(workflow)
    assert (await run(workflow)).raw_result == [1, ["a"]]
    assert (await run(workflow, initial_state=State(count=5))).state == {"count": 6, "items": ["a"]}


async def test_state_of_a_failed_step_is_dropped(register) -> None:
    async def write(ctx: StepContext[Any]) -> None:
        ctx.set_state({"a": 1})
        ctx.request_context.set("b", 2)
        raise RuntimeError("no")

    workflow = create_workflow(id="w").then(create_step(id="write", execute=write))
    await register(workflow)
    assert (await run(workflow)).state == {}


async def test_the_request_context_is_set_changed_in_place_and_deleted(register) -> None:
    async def change(ctx: StepContext[Any]) -> None:
        ctx.request_context["list"].append("more")
        ctx.request_context.delete("gone")
        ctx.request_context.set("none", None)

    async def read(ctx: StepContext[Any]) -> Any:
        return dict(ctx.request_context.items())

    workflow = create_workflow(id="w").then(create_step(id="change", execute=change))
    workflow.then(create_step(id="read", execute=read))
    await register(workflow)
    result = await run(workflow, request_context={"list": ["one"], "gone": 1})
    assert result.raw_result == {"list": ["one", "more"], "none": None}


async def test_retry_counts_begin_at_zero_and_runs_are_told_apart(register) -> None:
    async def facts(ctx: StepContext[Any]) -> Any:
        return [ctx.retry_count, ctx.run_id, ctx.workflow_id, ctx.resource_id, ctx.engine.name]

    workflow = create_workflow(id="w").then(create_step(id="facts", execute=facts))
    await register(workflow)
    results = [await run(workflow) for _ in range(3)]
    assert len({result.run_id for result in results}) == 3
    for result in results:
        assert result.raw_result[:4] == [0, result.run_id, "w", "user-1"]
