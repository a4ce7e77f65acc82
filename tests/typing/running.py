"""The types of workflows, runs and what comes of them; checked by pyright, never run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, assert_type

import inngest
from pydantic import BaseModel

from flowctl import (
    App,
    Run,
    RunResult,
    Step,
    StepContext,
    StepResult,
    Workflow,
    WorkflowEvent,
    clone_workflow,
    create_workflow,
    init,
    map_variable,
    step,
)
from flowctl.snapshot import RunError, RunStatus, StepStatus
from flowctl.stored_run import StoredRun
from flowctl.stream import RunStream
from flowctl.testing import TestApp, TestClock, run_workflow


class Given(BaseModel):
    n: int


class Gained(BaseModel):
    text: str


@step
async def add(data: Given) -> Given:
    return Given(n=data.n + 1)


@step
async def show(data: Given) -> Gained:
    return Gained(text=str(data.n))


def more(ctx: StepContext[Given]) -> bool:
    assert_type(ctx.input_data, Given)
    return ctx.input_data.n < 10


async def enough(ctx: StepContext[Given]) -> bool:
    return ctx.input_data.n >= 10


nested = create_workflow(id="nested", input_schema=Given, output_schema=Given).then(add).commit()
assert_type(nested, Workflow[Given, Given])
workflow = (
    create_workflow(id="w", input_schema=Given, output_schema=Gained)
    .then(add)
    .dowhile(add, more)
    .dountil(nested, enough)
    .dountil(add, lambda ctx: ctx.input_data.n > ctx.iteration_count)
    .parallel([add, nested])
    .branch([(lambda ctx: True, add), (lambda ctx: False, nested)])
    .map({"n": map_variable(step=add, path="n"), "x": {"value": 1}})
    .map(lambda ctx: [ctx.input_data])
    .foreach(add, concurrency=2)
    .sleep(1000)
    .sleep(timedelta(seconds=1))
    .sleep_until(datetime(2030, 1, 1, tzinfo=UTC))
    .map(lambda ctx: {"n": 1}, id="last")
    .then(show)
    .commit()
)
assert_type(workflow, Workflow[Given, Gained])
assert_type(clone_workflow(workflow, id="copy"), Workflow[Given, Gained])
assert_type(workflow.steps, dict[str, Step[Any, Any] | Workflow[Any, Any]])
assert_type(create_workflow(id="untyped"), Workflow[Any, Any])

factory = init(inngest.Inngest(app_id="app"))
assert_type(
    factory.create_workflow(id="w", input_schema=Given, output_schema=Gained), Workflow[Given, Gained]
)
assert_type(factory.clone_step(add, id="copy"), Step[Given, Given])
assert_type(factory.clone_workflow(workflow, id="copy"), Workflow[Given, Gained])


async def every_verb(run: Run[Gained]) -> None:
    assert_type(await run.start({"n": 1}), RunResult[Gained])
    assert_type(await run.start_async(Given(n=1)), str)
    assert_type(await run.resume(add, {"ok": True}), RunResult[Gained])
    assert_type(await run.resume(["nested", add], label="x", for_each_index=1), RunResult[Gained])
    assert_type(await run.resume_async(resume_data=1), str)
    assert_type(await run.restart(), RunResult[Gained])
    assert_type(await run.time_travel("add", context={"x": {"output": 1}}), RunResult[Gained])
    assert_type(await run.cancel(), None)
    assert_type(run.resume_stream("add"), RunStream[Gained])
    assert_type(run.time_travel_stream("add"), RunStream[Gained])
    assert_type(run.observe_stream(), RunStream[Gained])
    stop = run.watch(lambda event: print(event.type))
    assert_type(stop(), None)


async def results() -> None:
    run = await workflow.create_run(resource_id="user")
    assert_type(run, Run[Gained])
    stream = run.stream({"n": 1})
    assert_type(stream, RunStream[Gained])
    async for event in stream:
        assert_type(event, WorkflowEvent)
        assert_type(event.payload, Mapping[str, Any])
    assert_type(stream.status, RunStatus)
    result = await stream.result()
    assert_type(result.status, RunStatus)
    assert_type(result.result, Gained | None)
    assert_type(result.steps, dict[str, StepResult])
    assert_type(result.steps["add"].status, StepStatus)
    assert_type(result.steps["add"].started_at, int | None)
    assert_type(result.error, RunError | None)
    assert_type(result.suspended, list[list[str]])
    assert_type(result.state, dict[str, Any])


async def stored() -> None:
    page = await workflow.list_workflow_runs(status="success", page=0, per_page=10)
    assert_type(page.runs, list[StoredRun])
    assert_type(page.total, int)
    assert_type(await workflow.get_workflow_run_by_id("r"), StoredRun | None)
    assert_type(await workflow.delete_workflow_run_by_id("r"), bool)


async def in_tests() -> None:
    clock = TestClock(datetime(2030, 1, 1, tzinfo=UTC))
    assert_type(await run_workflow(workflow, {"n": 1}, clock=clock), RunResult[Gained])
    assert_type(clock.elapsed, timedelta)
    async with TestApp(workflows=[workflow], engine="inngest") as app:
        assert_type(app, TestApp)
        assert_type(app.get_workflow("w"), Workflow[Any, Any])


app = App(workflows=[workflow, nested])
assert_type(app.workflows, dict[str, Workflow[Any, Any]])
names: Sequence[str] = list(app.workflows)
