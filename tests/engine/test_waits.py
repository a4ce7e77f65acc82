"""Those that wait for an event are found by what they need of it, however many wait."""

from __future__ import annotations

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from flowctl.engine import cel
from flowctl.engine import statements as sql
from flowctl.engine.expressions import holds
from flowctl.engine.matching import key_at, key_of
from flowctl.engine.protocol import parse_event
from flowctl.engine.store import Store
from flowctl.engine.turn import Wait
from tests.engine.simulated_starts import Simulation

cel.compiled("true")  # its library raises the recursion limit once, which hypothesis would complain of
VALUES = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-2, 2) | st.sampled_from("ab")
CONDITIONS = st.sampled_from(
    [
        None,
        "event.data.id == async.data.id",
        "async.data.id == event.data.id",
        "event.data.id == async.data.other",
        "async.data.id == 'a'",
        "async.data.id == 1",
        "async.data.id == true",
        "event.data.id == event.data.other",
        "async.data.id == event.data.id && async.data.other > 0",
        "async.data.other > 0 && async.data.id == event.data.id",
        "async.data.id == event.data.id || async.data.other > 0",
        "!(async.data.id == event.data.id)",
        "async.data.id == event.data.id ? false : true",
        "async.data.other != \"x && async.data.id == 'a' && y\"",
    ]
)


@drawn(CONDITIONS, VALUES, VALUES, VALUES)
def test_whoever_has_a_condition_that_holds_is_found(condition, mine, theirs, other):
    event = {"name": "begun", "data": {"id": mine, "other": "a"}}
    came = {"name": "came", "data": {"id": theirs, "other": other}}
    if holds(condition, {"event": event, "async": came}):
        key = key_of(condition, event)
        assert key_at(key.path, came) == key


@pytest.mark.parametrize(
    ("condition", "path"),
    [
        ("event.data.id == async.data.id", "data.id"),
        ("async.data.amount > 10 && async.data.id == '7'", "data.id"),
        ("async.data.id == '7' || async.data.amount > 10", ""),
        ("event.data.id == '7'", ""),
    ],
)
def test_an_equality_that_must_hold_says_where_to_look(condition, path):
    assert key_of(condition, {"data": {"id": "7"}}).path == path


def waiting(count: int, condition: str) -> Simulation:
    """Runs that wait for the event `came`."""
    made = Simulation(cancel=[{"event": "stop", "if": "event.data.i == async.data.i"}])
    for i in range(count):
        (run,) = made.send(0, i=i)
        with made.store.transaction():
            wait = Wait("s", "came", condition.replace("I", str(i)), 10**9, race=False)
            made.ledger.carry_out(run, wait, 0)
    return made


def rows_read(made: Simulation, name: str, i: int) -> int:
    """How many rows the search for those that an event concerns gives."""
    counted, (paths, found) = 0, QUERIES[name]
    data = parse_event({"name": name, "data": {"i": i}}, now=1).to_json()
    for (path,) in made.store.db.execute(paths, (name,)).fetchall():
        counted += len(made.store.db.execute(found, (name, *key_at(path, data))).fetchall())
    return counted


QUERIES = {
    "came": (sql.WAITED_PATHS, sql.WAITS_FOR_EVENT),
    "stop": (sql.CANCELLING_PATHS, sql.CANCELLED_BY),
}
OF_THE_RUN = ["event.data.i == async.data.i", "async.data.i == I", "async.data.i == I && async.data.i >= 0"]


@pytest.mark.parametrize("condition", OF_THE_RUN)
def test_an_event_looks_at_the_one_run_that_it_may_concern(condition):
    made = waiting(50, condition)
    assert (rows_read(made, "came", 7), rows_read(made, "stop", 7), rows_read(made, "came", 99)) == (1, 1, 0)


@pytest.mark.parametrize("condition", OF_THE_RUN)
def test_the_run_that_is_meant_goes_on_and_the_run_that_is_meant_ends(condition):
    made = waiting(3, condition)
    made.ledger.take_in([parse_event({"name": "came", "data": {"i": 1}}, now=1)])
    assert [made.store.has_pending(run.run_id) for run in made.store.open_runs("f")] == [True, False, True]
    made.ledger.take_in([parse_event({"name": "stop", "data": {"i": 2}}, now=1)])
    assert [run.event["data"]["i"] for run in made.store.open_runs("f")] == [0, 1]


@pytest.mark.parametrize(
    ("query", "given"),
    [(query, given) for pair in QUERIES.values() for query, given in zip(pair, ("e", "epd"), strict=True)],
)
def test_the_database_looks_them_up_in_an_index(query, given):
    plan = Store(None).db.execute(f"EXPLAIN QUERY PLAN {query}", tuple(given)).fetchall()
    steps = [detail for *_, detail in plan if any(name in detail for name in ("pending", "cancels", "runs"))]
    assert steps
    assert all(step.startswith("SEARCH") for step in steps), steps


def test_a_run_that_ended_is_no_longer_cancelled_by_anything():
    made = waiting(1, "true")
    (run,) = made.store.open_runs("f")
    made.finish(run, now=1)
    assert made.store.db.execute("SELECT count(*) FROM cancels").fetchone() == (0,)
