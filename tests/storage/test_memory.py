"""What is kept in memory is what a database keeps, and nobody else's to change."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from flowctl import App, MemoryStorage, SQLiteStorage, create_step, create_workflow
from flowctl.events import WorkflowEvent, run_canceled
from flowctl.schema import to_json
from flowctl.snapshot import RunError, Snapshot, StepResult
from flowctl.storage.base import Claim, Commit, Inside, RecordWrite, TakeUp
from tests.storage.databases import claim, create

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=3)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | texts | st.datetimes()
lists = st.lists(scalars, max_size=2) | st.tuples(scalars)
values = (scalars | lists | st.dictionaries(texts | st.integers(0, 9), scalars | lists, max_size=2)).map(
    to_json
)
objects = st.dictionaries(texts, values, max_size=1)
errors = st.none() | st.builds(RunError, texts, texts, stack=st.none() | texts)
keys = st.sampled_from(["a", "a/b", "a[0]", "a[0]/c"])
legs = st.sampled_from(["running", "running", "waiting", "suspended", "success", "failed"])
records = st.builds(StepResult, legs, values, values, errors, suspended_at=st.none() | st.integers(1, 9))
snapshots = st.builds(
    Snapshot, st.just("r"), legs, values, state=objects, result=values, error=errors,
    timestamp=st.integers(1, 9),
)  # fmt: skip
events = st.builds(WorkflowEvent, texts, objects, st.just("r"), st.booleans())
late = st.dictionaries(st.just("late"), objects)
executions = st.sampled_from([None, None, "", "x", "y"])
writes = st.builds(RecordWrite, records, st.just("op"), st.none() | objects, late)
commits = st.builds(
    Commit, st.just("w"), st.just("r"), st.sampled_from([0, 0, 0, 1]), st.integers(1, 9),
    snapshots | st.builds(Inside, keys, st.just("op"), objects, legs),
    st.dictionaries(keys, writes, max_size=2) | st.just({"a/": None}),
    st.lists(st.tuples(keys, events), max_size=2),
    is_shown=st.booleans(), execution=executions,
)  # fmt: skip
claims = st.builds(
    Claim, st.just("w"), st.just("r"), st.just(frozenset({"pending", "suspended", "running"})),
    st.integers(1, 9), snapshots, st.sampled_from(["local", "inngest"]), leg=st.none() | st.integers(0, 2),
    records=st.none() | st.dictionaries(keys, records, max_size=2), dispatch=st.none() | objects,
    is_shown=st.booleans(), execution=executions,
)  # fmt: skip
taken = st.builds(
    TakeUp, st.just("w"), st.just("r"), st.integers(0, 2), st.sampled_from("xy"), st.none() | keys
)  # fmt: skip
moves = commits | commits | claims | taken | snapshots | st.sampled_from(["cancel", "prune", "delete"])


async def made(storage: Any, move: Any) -> Any:
    """What a storage answers to a move; legs of commits are counted from the newest back."""
    run = ("w", "r")
    match move:
        case Commit():
            _, newest = await storage.get_status(*run) or ("", 0)
            return await storage.commit(replace(move, leg=newest - move.leg))
        case Claim() | TakeUp():
            return await (storage.claim(move) if isinstance(move, Claim) else storage.take_up(move))
        case Snapshot():
            return await storage.save_snapshot(*run, move)
        case "cancel":
            return await storage.cancel(*run, event=run_canceled("r"), now=5)
        case "prune":
            return await storage.prune(before=5)
        case _:
            return await storage.delete_run(*run)


async def told(storage: Any) -> list[Any]:
    """All that a storage tells of its runs."""
    return [
        await storage.get_run("w", "r"),
        await storage.get_shown_run("w", "r"),
        await storage.get_earlier_run("w", "r"),
        await storage.list_runs(),
        orjson.loads(orjson.dumps(await storage.list_runs_json("w"))),
        [event for _, event in await storage.read_events("w", "r")],
        [
            await storage.finished_memo("w", "r", leg=None, key=key, op=op)
            for key in ("a", "a/b", "d")
            for op in ("op", "late")
        ],
        await storage.undelivered(),
        await storage.active_local_runs(0),
        await storage.count_runs(["w"], ["pending", "running", "success", "canceled"]),
    ]


@settings(max_examples=60, deadline=None)
@given(st.booleans(), st.booleans(), st.lists(moves, min_size=6, max_size=12))
def test_it_answers_as_a_database_does(is_shown: bool, shows_leg: bool, moves: list[Any]) -> None:
    async def check() -> None:
        memory, database = MemoryStorage(), SQLiteStorage(":memory:")
        for storage in (memory, database):
            await create(storage, is_shown=is_shown)
            await claim(storage, is_shown=shows_leg)
        for move in moves:
            assert await made(memory, move) == await made(database, move)
            assert await told(memory) == await told(database)
        await database.close()

    asyncio.run(check())


async def test_what_was_read_is_the_readers_own() -> None:
    storage = MemoryStorage()
    workflow = create_workflow(id="w").then(create_step(id="a", execute=lambda _: {"list": [1]}))
    App(workflows=[workflow], storage=storage, engine="local")
    given = {"list": [1]}
    result = await (await workflow.create_run("r")).start(given, initial_state={"list": [1]})
    events = await storage.read_events("w", "r")
    for shown in (given, result.input, result.state, result.result, result.steps["a"].output):
        shown["list"].append(2)
    events[1][1].payload["payload"]["list"].append(2)
    stored = await storage.get_run("w", "r")
    told = (stored.input, stored.state, stored.result, stored.steps["a"].output)
    assert told == ({"list": [1]},) * 4
    assert (await storage.read_events("w", "r"))[1][1].payload["payload"] == {"list": [1]}


async def test_a_snapshot_that_was_saved_stays_its_givers() -> None:
    storage, given = MemoryStorage(), Snapshot("r", state={"list": [1]})
    await storage.save_snapshot("w", "r", given)
    given.state["list"].append(2)
    assert (await storage.get_run("w", "r")).state == {"list": [1]}


async def test_runs_outlive_the_apps_that_share_it() -> None:
    storage = MemoryStorage()
    for _ in range(2):
        workflow = create_workflow(id="w").then(create_step(id="a", execute=lambda _: 1))
        app = App(workflows=[workflow], storage=storage, engine="local")
        await (await workflow.create_run()).start()
        await app.stop()
    assert (await storage.list_runs("w")).total == 2
