"""Runs that ended long ago are forgotten while an app is up."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from flowctl import App, create_workflow, step
from flowctl.testing import TestClock
from tests.storage.databases import Database


@step
async def one(data: int) -> int:
    return data


async def test_a_started_app_forgets_what_ended_before_its_retention(database: Database) -> None:
    storage, clock = database.storage(), TestClock()
    workflow = create_workflow(id="w").then(one)
    app = App(
        workflows=[workflow], storage=storage, engine="local", clock=clock, retention=timedelta(days=30)
    )
    for name in ("old", "young"):
        await (await workflow.create_run(run_id=name)).start(1)
        await clock.sleep_until(clock.now() + 20 * 24 * 3_600_000)
    await app.start()
    async with asyncio.timeout(30):
        while await workflow.get_workflow_run_by_id("old") is not None:  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)
    assert (await workflow.list_workflow_runs()).total == 1
    await app.stop()
