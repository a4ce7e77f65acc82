"""Runs of the local engine whose process is gone are taken over, each by one."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from typing import Any

from flowctl import App, create_workflow, step
from flowctl.clock import now_ms
from flowctl.runners import local
from flowctl.storage.base import Lease
from flowctl.take_over import take_over
from tests.storage.databases import Database, claim, create, snapshot

calls: list[int] = []


@step
async def work(data: int) -> int:
    calls.append(data)
    await asyncio.sleep(0.01)
    return data + 1


def app_on(database: Database, **options: Any) -> tuple[App, Any]:
    calls.clear()
    workflow = create_workflow(id="w", **options).then(work)
    return App(workflows=[workflow], storage=database.storage(), engine="local"), workflow


async def left_behind(database: Database, lease: Lease) -> None:
    """A run that another process had begun."""
    storage = database.storage()
    await create(storage, input=1)
    await claim(storage, lease=lease, snapshot=snapshot(input=1))


async def test_a_run_of_which_no_state_is_shown_is_taken_over(database: Database) -> None:
    storage = database.storage()
    await create(storage, input=1, is_shown=False)
    await claim(storage, lease=Lease("another-host:1:x", 1), snapshot=snapshot(input=1), is_shown=False)
    app, _ = app_on(database, should_persist_snapshot=lambda info: info.workflow_status == "success")
    await app.start()
    async with asyncio.timeout(30):
        result = await (await app.get_workflow("w").create_run("r")).observe_stream().result()
    assert (result.status, calls) == ("success", [1])
    assert (await storage.load_snapshot("w", "r"))["status"] == "success"
    await app.stop()


async def ended(workflow: Any) -> Any:
    async with asyncio.timeout(30):
        while (run := await workflow.get_workflow_run_by_id("r")).status == "running":  # noqa: ASYNC110 - storage tells by asking
            await asyncio.sleep(0.01)
    return run


async def test_an_app_that_is_up_takes_over_when_a_lease_lapses(database: Database, monkeypatch) -> None:
    monkeypatch.setattr("flowctl.app.TAKE_OVER_SECONDS", 0.02)
    await left_behind(database, Lease("another-host:1:x", now_ms() + 400))
    app, workflow = app_on(database)
    await app.start()
    assert calls == []
    assert (await ended(workflow)).status == "success"
    await app.stop()


async def test_of_several_that_take_over_at_once_one_does(database: Database) -> None:
    await left_behind(database, Lease("another-host:1:x", 1))
    apps = [app_on(database) for _ in range(4)]
    await asyncio.gather(*(take_over(app) for app, _ in apps))
    assert (await ended(apps[0][1])).leg == 2
    assert len(calls) == 1
    for app, _ in apps:
        await app.stop()


async def test_a_run_that_sleeps_is_waiting_whoever_goes_on_with_it(database: Database, monkeypatch) -> None:
    monkeypatch.setattr("flowctl.app.STOP_GRACE_SECONDS", 0)

    def asleep() -> tuple[App, Any]:
        workflow = create_workflow(id="w").then(work).sleep(3600_000).commit()
        return App(workflows=[workflow], storage=database.storage(), engine="local"), workflow

    async def waiting(leg: int) -> str:
        async for _, event in app.feed.follow(app.storage, "w", "r"):
            seen.append(event.type)
            if seen.count("workflow-start") == leg and "workflow-step-waiting" in seen:
                break
        return (await workflow.get_workflow_run_by_id("r")).status

    seen: list[str] = []
    (app, workflow), (heir, _) = asleep(), asleep()
    await (await workflow.create_run(run_id="r")).start_async(1)
    assert await waiting(leg=1) == "waiting"
    left = asyncio.Event()
    app.local_runner.part(left.set)
    await left.wait()
    await take_over(heir)
    seen.clear()
    assert await waiting(leg=2) == "waiting"
    await heir.stop()
    await app.stop()


def test_a_process_with_the_same_number_as_this_one_was_another() -> None:
    mine = App(engine="local").local_runner.owner
    assert not local.is_lost(mine)
    assert local.is_lost(f"{socket.gethostname()}:{os.getpid()}:another")
    assert not local.is_lost(f"another-host:{os.getpid()}:another")


async def test_a_held_up_event_loop_keeps_its_leases(database: Database, monkeypatch) -> None:
    monkeypatch.setattr(local, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(local, "LEASE_MS", 400)
    held: list[Any] = []

    @step
    async def blocking() -> None:
        await asyncio.sleep(0.1)
        time.sleep(1)  # noqa: ASYNC251 - what users should not do
        held.extend(await storage.active_local_runs(now_ms()))

    workflow, storage = create_workflow(id="w").then(blocking), database.storage()
    app = App(workflows=[workflow], storage=storage, engine="local")
    await (await workflow.create_run()).start()
    assert [pointer.lease_owner for pointer in held] == [app.local_runner.owner]
    await app.stop()
