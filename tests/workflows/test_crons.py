"""Workflows that run by themselves, on a schedule of the Inngest engine."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel

from flowctl import create_workflow
from flowctl.clock import SystemClock
from flowctl.testing import TestApp
from tests.workflows.making import Ran, start

EACH_SECOND = "* * * * * *"


class Report(BaseModel):
    city: str


async def first_run(workflow: Any) -> Any:
    """The first run that has ended."""
    async with asyncio.timeout(30):
        while not (runs := (await workflow.list_workflow_runs(status="success")).runs):  # noqa: ASYNC110 - asked of storage
            await asyncio.sleep(0.05)
    return runs[-1]


@pytest.mark.parametrize("cron", [EACH_SECOND, f"TZ=Europe/Vienna {EACH_SECOND}", ["0 0 1 1 *", EACH_SECOND]])
async def test_a_schedule_fires_with_its_input(cron: Any) -> None:
    ran, given = Ran(), {"city": "Vienna"}
    workflow = create_workflow(id="w", input_schema=Report, cron=cron, cron_input=given)
    workflow.then(ran.step("report", lambda ctx: ctx.input_data.city, input_schema=Report))
    async with TestApp(workflows=[workflow], engine="inngest", clock=SystemClock()):
        run = await first_run(workflow)
        assert (run.input, run.result, run.steps["report"].status) == (given, "Vienna", "success")
        assert run.run_id in {r.run_id for r in (await workflow.list_workflow_runs()).runs}


async def test_on_the_local_engine_it_is_said_once_that_schedules_and_flow_control_do_nothing(caplog) -> None:
    idle = {"cron": EACH_SECOND, "idempotency": "event.data.id"}
    workflow, plain = (
        create_workflow(id=id, **o).then(Ran().step("a")) for id, o in [("w", idle), ("p", {})]
    )
    async with TestApp(workflows=[workflow, plain]):
        await start(workflow)
        await start(plain)
    [told] = [record.getMessage() for record in caplog.records]
    assert told.startswith("Workflow 'w' runs on the local engine, where idempotency, cron has no effect")


async def test_a_schedule_in_a_time_zone_keeps_its_hour_there() -> None:
    from flowctl.engine.cron import next_time

    morning, zone = "0 9 * * *", "TZ=America/New_York "
    for day, hour in [(datetime(2030, 1, 5, tzinfo=UTC), 14), (datetime(2030, 7, 5, tzinfo=UTC), 13)]:
        after = int(day.timestamp() * 1000)
        moment = datetime.fromtimestamp(next_time(zone + morning, after=after) / 1000, UTC)
        assert (moment.day, moment.hour) == (day.day, hour)


async def test_a_run_of_a_schedule_is_canceled_alone() -> None:
    began: asyncio.Queue[Any] = asyncio.Queue()

    async def wait(ctx: Any) -> None:
        began.put_nowait(ctx.run_id)
        await asyncio.wait_for(ctx.abort_signal.wait(), 30)

    workflow = create_workflow(id="w", cron=EACH_SECOND).then(Ran().step("wait", wait))
    async with TestApp(workflows=[workflow], engine="inngest", clock=SystemClock()):
        first, second = [await asyncio.wait_for(began.get(), 30) for _ in range(2)]
        await (await workflow.create_run(run_id=first)).cancel()
        assert (await workflow.get_workflow_run_by_id(first)).status == "canceled"
        assert (await workflow.get_workflow_run_by_id(second)).status == "running"
        for run in (await workflow.list_workflow_runs(status="running")).runs:
            await (await workflow.create_run(run_id=run.run_id)).cancel()
