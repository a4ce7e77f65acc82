"""Workflows on every storage and both engines: the verbs of a run, each once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from flowctl import RunStateError, StepContext, clone_step, create_step, create_workflow, step
from flowctl.testing import TestApp
from tests.storage.databases import Database


@step
async def double(data: int) -> int:
    return data * 2


@step
async def ask(ctx: StepContext[int]) -> int:
    if ctx.resume_data is None:
        await ctx.suspend({"have": ctx.input_data})
    return ctx.input_data + ctx.resume_data


@pytest.fixture(params=["local", "inngest"])
async def register(request: pytest.FixtureRequest, shared: Database) -> AsyncIterator[Any]:
    async with contextlib.AsyncExitStack() as stack:

        async def make(*workflows: Any) -> TestApp:
            app = TestApp(workflows=workflows, engine=request.param, storage=shared.storage())
            return await stack.enter_async_context(app)

        yield make


async def test_a_run_suspends_and_one_of_two_resumes_wins(register) -> None:
    workflow = create_workflow(id="w").then(double).parallel([ask]).map({"got": {"step": "ask"}})
    await register(workflow)
    run = await workflow.create_run()
    assert (await run.start(4)).suspend_payload == {"ask": {"have": 8}}
    results = await asyncio.gather(*(run.resume(resume_data=n) for n in (1, 2)), return_exceptions=True)
    (won,) = [r for r in results if not isinstance(r, BaseException)]
    (lost,) = [r for r in results if isinstance(r, BaseException)]
    assert isinstance(
        lost, RunStateError
    )  # claimed by the other, or no longer suspended when it was looked at
    assert won.raw_result in ({"got": 9}, {"got": 10})


async def test_a_run_is_streamed_canceled_and_listed(register) -> None:
    workflow = create_workflow(id="w").then(double).then(ask)
    await register(workflow)
    run = await workflow.create_run(resource_id="ada")
    types = [event.type async for event in run.stream(1)]
    await run.cancel()
    listed = await workflow.list_workflow_runs(resource_id="ada", status="canceled")
    assert ([r.run_id for r in listed.runs], types[0], types[-1]) == (
        [run.run_id], "workflow-start", "workflow-finish"
    )  # fmt: skip


async def test_an_interrupted_run_restarts_where_it_was(register) -> None:
    calls: list[str] = []

    def named(id: str) -> Any:
        async def work(ctx: StepContext[int]) -> int:
            calls.append(id)
            return ctx.input_data + 1

        return create_step(id=id, execute=work)

    workflow = create_workflow(id="w").then(named("a")).then(named("b"))
    app = await register(workflow)
    context = {"input": 1, "a": {"status": "success", "payload": 1, "output": 2}}
    await app.storage.save_snapshot("w", "r", {"runId": "r", "status": "running", "context": context})
    result = await (await workflow.create_run(run_id="r")).restart()
    assert (result.raw_result, calls) == (3, ["b"])


async def test_a_finished_run_travels_back(register) -> None:
    other = clone_step(double, id="other")
    workflow = create_workflow(id="w").then(double).then(other).map(lambda ctx: [ctx.input_data, 1])
    await register(workflow.foreach(clone_step(double, id="each"), concurrency=2))
    run = await workflow.create_run()
    assert (await run.start(3)).raw_result == [24, 2]
    again = await run.time_travel("other", input_data=5)
    assert again.raw_result == [20, 2]
