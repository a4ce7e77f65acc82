"""Restarting a run on Inngest: refused while the engine executes it, done once it does not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from flowctl import EngineError, StepContext, StillRunningError, create_step, create_workflow
from flowctl.runners import dispatch
from tests.runners.front import Served, on_engine

ran: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


def step(id: str, execute: Any = None) -> Any:
    async def body(ctx: StepContext[Any]) -> Any:
        ran.append(id)
        return await execute(ctx) if execute else ctx.input_data

    return create_step(id=id, execute=body)


async def begun_run(served: Served, id: str) -> Any:
    """A run that has come to its step `id`."""
    run = await served.app.get_workflow("w").create_run()
    await run.start_async(1)
    async with asyncio.timeout(20):
        while id not in ran:  # noqa: ASYNC110 - steps note that they ran, no more
            await asyncio.sleep(0.01)
    return run


async def function_run(served: Served, run: Any) -> str:
    """Inngest's id of what executes the run's newest leg, once that has begun."""
    async with asyncio.timeout(20):
        while True:
            stored = await served.app.storage.load_snapshot("w", run.run_id)
            if "engineRunId" in stored:
                return stored["engineRunId"]
            await asyncio.sleep(0.01)


async def test_a_run_whose_step_is_in_flight_is_not_restarted():
    go_on = asyncio.Event()
    workflow = create_workflow(id="w").then(step("first", lambda _: go_on.wait())).commit()
    async with on_engine(workflows=[workflow]) as served:
        run = await begun_run(served, "first")
        with pytest.raises(StillRunningError, match="still running"):
            await run.restart()
        go_on.set()
        events = [event.type async for event in run.observe_stream()]
        assert (events[-1], ran) == ("workflow-finish", ["first"])


async def test_a_run_that_sleeps_in_the_engine_is_not_restarted_until_its_function_run_is_gone():
    workflow = create_workflow(id="w").then(step("first")).sleep(60_000).then(step("last")).commit()
    async with on_engine(workflows=[workflow]) as served:
        run = await begun_run(served, "first")
        with pytest.raises(StillRunningError, match="still running"):
            await run.restart()
        first = await function_run(served, run)
        (await served.front.http.delete(f"{served.engine.url}/v1/runs/{first}")).raise_for_status()
        await run.restart_async()
        assert await function_run(served, run) != first
        with pytest.raises(StillRunningError, match="still running"):
            await run.restart()
        assert ran == ["first"]


async def test_a_restart_changes_nothing_when_the_engine_does_not_answer():
    workflow = create_workflow(id="w").then(step("first")).sleep(60_000).commit()
    async with on_engine(workflows=[workflow]) as served:
        run = await begun_run(served, "first")
        served.front.refuse = lambda path: 401 if path.startswith("/v1/runs/") else None
        with pytest.raises(EngineError, match="does not tell about runs: 401"):
            await run.restart()
        assert await served.app.storage.get_status("w", run.run_id) == ("waiting", 1)


async def test_who_waits_for_a_run_that_the_engine_ends_by_itself_is_told(monkeypatch):
    monkeypatch.setattr(dispatch, "FIRST_LOOK_SECONDS", 0.01)
    ended: list[str] = []
    workflow = create_workflow(id="w", on_finish=lambda info: ended.append(info.status))
    workflow.then(step("first")).sleep(60_000).then(step("last")).commit()
    async with on_engine(workflows=[workflow]) as served:
        run = await workflow.create_run()
        waiting = asyncio.create_task(run.start(1))
        first = await function_run(served, run)
        (await served.front.http.delete(f"{served.engine.url}/v1/runs/{first}")).raise_for_status()
        result = await asyncio.wait_for(waiting, 20)
        assert (result.status, ended, ran) == ("canceled", ["canceled"], ["first"])
        assert [event.type async for event in run.observe_stream()][-1] == "workflow-canceled"
