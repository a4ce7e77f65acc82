"""What is shown of a run apart from what it goes on from, for every kind of database."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from flowctl.events import run_canceled
from flowctl.snapshot import StepResult
from tests.storage.databases import Database, begun, claim, commit, create, snapshot


async def seen(storage: Any) -> list[tuple[str, dict[str, Any]]]:
    """Status and outputs of the runs that are shown; everything that shows them agrees."""
    runs = (await storage.list_runs("w")).runs
    for run in runs:
        assert await storage.load_snapshot("w", run.run_id) == run.snapshot.to_json()
        assert (await storage.list_runs("w", status=run.status)).total == 1
        assert await storage.count_runs(["w"], [run.status]) == {("w", run.status): 1}
    shown, total = await storage.list_runs_json("w")
    assert (orjson.loads(orjson.dumps(shown)), total) == ([run.to_json() for run in runs], len(runs))
    return [
        (run.status, {key: record.output for key, record in run.snapshot.records.items()}) for run in runs
    ]


async def test_a_write_that_is_not_shown_leaves_what_was_shown(storage) -> None:
    await begun(storage)
    await commit(storage, one=1, status="suspended")
    moved = {"one": StepResult("success", output=9)}
    assert await claim(storage, expected=["suspended"], records=moved, is_shown=False) == 2
    await commit(storage, leg=2, two=2, is_shown=False)
    assert await seen(storage) == [("suspended", {"one": 1})]
    run = await storage.get_run("w", "r")
    assert (run.status, {key: record.output for key, record in run.steps.items()}) == (
        "running",
        {"one": 9, "two": 2},
    )
    await commit(storage, leg=2, status="success")
    assert await seen(storage) == [("success", {"one": 9, "two": 2})]


async def test_a_run_is_shown_from_the_first_write_that_is(storage) -> None:
    await create(storage, is_shown=False)
    await claim(storage, is_shown=False)
    await commit(storage, one=1, is_shown=False)
    assert (await seen(storage), await storage.get_shown_run("w", "r")) == ([], None)
    assert (await storage.get_run("w", "r")).status == "running"
    await commit(storage, two=2)
    assert await seen(storage) == [("running", {"one": 1, "two": 2})]


async def test_a_write_that_is_refused_changes_nothing_that_is_shown(storage) -> None:
    await begun(storage)
    await commit(storage, one=1)
    assert not await commit(storage, leg=0, two=2, is_shown=False)
    assert await claim(storage, is_shown=False) is None
    await commit(storage, three=3)
    assert await seen(storage) == [("running", {"one": 1, "three": 3})]


async def test_what_was_shown_goes_with_a_cancellation_a_saved_snapshot_and_the_run(storage) -> None:
    await begun(storage)
    await commit(storage, one=1, is_shown=False)
    await storage.cancel("w", "r", event=run_canceled("r"), now=9)
    assert await seen(storage) == [("canceled", {"one": 1})]
    await claim(storage, expected=["canceled"], is_shown=False)
    await storage.save_snapshot("w", "r", snapshot(status="paused"))
    assert await seen(storage) == [("paused", {})]
    await claim(storage, expected=["paused"], is_shown=False)
    assert await storage.delete_run("w", "r")
    assert await seen(storage) == []


async def test_one_state_is_kept_however_many_write_at_once(database: Database) -> None:
    await begun(database.storage())
    await commit(database.storage(), one=1, status="suspended")
    handles = [database.storage() for _ in range(4)]
    legs = await asyncio.gather(*(claim(h, expected=["suspended"], is_shown=False) for h in handles))
    assert sorted(legs, key=str) == [2, None, None, None]
    assert await seen(handles[0]) == [("suspended", {"one": 1})]
