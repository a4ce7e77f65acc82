"""What tests of workflows are given: one call, a clock that skips sleeps, apps on either engine."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import inngest
import pytest

from flowctl import App, MemoryStorage, StepContext, ValidationError, clone_step, create_workflow, init, step
from flowctl.testing import TestApp, TestClock, run_workflow

DAY = 24 * 3_600_000


@step
async def one(data: int) -> int:
    return data + 1


async def test_a_workflow_runs_without_an_app() -> None:
    result = await run_workflow(create_workflow(id="w", output_schema=int).then(one), 1)
    assert (result.status, result.result, result.steps["one"].payload) == ("success", 2, 1)


async def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValidationError, match="Invalid input data"):
        await run_workflow(create_workflow(id="w", input_schema=int).then(one), "no number")


async def test_a_workflow_of_an_app_and_of_a_client_stays_there() -> None:
    client = inngest.Inngest(app_id="theirs", is_production=False)
    workflow = init(client).create_workflow(id="w").then(one)
    app = App(workflows=[workflow], storage=MemoryStorage())
    results = await asyncio.gather(*(run_workflow(workflow, n) for n in range(5)))
    assert [r.raw_result for r in results] == [1, 2, 3, 4, 5]
    async with TestApp(app, engine="inngest") as test:
        assert (await (await workflow.create_run()).start(1)).raw_result == 2
        assert workflow.client is test.inngest
    assert (workflow.app, workflow.client) == (app, client)


@pytest.mark.parametrize("engine", ["local", "inngest"])
async def test_a_week_of_sleep_takes_no_time(engine: Any) -> None:
    workflow = create_workflow(id="w").then(one).sleep(timedelta(days=7)).then(clone_step(one, id="two"))
    clock = TestClock(datetime(2030, 1, 1, tzinfo=UTC))
    async with TestApp(workflows=[workflow], engine=engine, clock=clock):
        result = await (await workflow.create_run()).start(1)
    assert (result.raw_result, clock.elapsed) == (3, timedelta(days=7))


async def test_retry_delays_take_no_time() -> None:
    tries: list[int] = []

    @step(retries=3)
    async def flaky(data: int, ctx: StepContext) -> int:
        tries.append(ctx.retry_count)
        if len(tries) < 4:
            raise RuntimeError("not yet")
        return data

    clock = TestClock()
    workflow = create_workflow(id="w", retry_config={"attempts": 3, "delay": DAY}).then(flaky)
    result = await run_workflow(workflow, 1, clock=clock)
    assert (result.status, tries, clock.elapsed) == ("success", [0, 1, 2, 3], timedelta(days=3))


async def test_sleeps_that_overlap_end_in_their_order() -> None:
    woken: list[str] = []

    def arm(name: str, days: int) -> Any:
        @step(id=name)
        async def wake() -> None:
            woken.append(name)

        return create_workflow(id=f"after-{name}").sleep(days * DAY).then(wake).commit()

    clock = TestClock()
    workflow = create_workflow(id="w").parallel([arm("c", 30), arm("a", 1), arm("b", 7)])
    await run_workflow(workflow, None, clock=clock)
    assert (woken, clock.elapsed) == (["a", "b", "c"], timedelta(days=30))


async def test_records_bear_the_times_of_the_clock() -> None:
    clock = TestClock(datetime(2030, 1, 1, tzinfo=UTC))
    result = await run_workflow(create_workflow(id="w").sleep(DAY).then(one), 1, clock=clock)
    assert result.steps["one"].started_at == int(datetime(2030, 1, 2, tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize("engine", ["local", "inngest"])
async def test_an_app_of_a_test_suspends_and_resumes(engine: Any) -> None:
    @step
    async def ask(ctx: StepContext[int]) -> int:
        if ctx.resume_data is None:
            await ctx.suspend({"how": "many"})
        return ctx.input_data + ctx.resume_data

    workflow = create_workflow(id="w").then(ask)
    async with TestApp(workflows=[workflow], engine=engine) as app:
        run = await app.get_workflow("w").create_run()
        assert (await run.start(1)).suspend_payload == {"ask": {"how": "many"}}
        assert (await run.resume(resume_data=4)).raw_result == 5


async def test_an_apps_own_functions_run_on_the_tests_engine() -> None:
    client = inngest.Inngest(app_id="theirs", is_production=False)
    seen: asyncio.Queue[Any] = asyncio.Queue()

    @client.create_function(fn_id="hear", trigger=inngest.TriggerEvent(event="said"))
    async def hear(ctx: inngest.Context) -> None:
        await seen.put(ctx.event.data["what"])

    app = App(functions=[hear], inngest=client, storage=MemoryStorage())
    async with TestApp(app, engine="inngest") as test:
        assert test.inngest is not None
        await test.inngest.send(inngest.Event(name="said", data={"what": "hello"}))
        assert await asyncio.wait_for(seen.get(), 10) == "hello"


async def test_a_test_that_fails_gives_its_workflows_back() -> None:
    workflow = create_workflow(id="w").then(one)
    with pytest.raises(RuntimeError, match="in the test"):
        async with TestApp(workflows=[workflow]):
            raise RuntimeError("in the test")
    assert workflow.app is None


def test_importing_flowctl_loads_neither_pytest_nor_the_testing_tools() -> None:
    script = "import sys, flowctl; print([m for m in ('pytest', 'flowctl.testing') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
