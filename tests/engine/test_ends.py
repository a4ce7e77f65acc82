"""What the end of a run makes known, and what it starts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from simulated_starts import Simulation

from flowctl.engine.ledger import Ledger
from flowctl.engine.protocol import FINISHED, Function, parse_event
from flowctl.engine.store import RunRow
from flowctl.engine.turn import (
    AbortDefer,
    Call,
    Defer,
    Discover,
    Finish,
    Invoke,
    Memoize,
    Plan,
    Reply,
    effects_of,
)


def add_function(ledger: Ledger, slug: str, **config: Any) -> None:
    ledger.functions[slug] = Function(slug, slug, slug, "app", "", config)


def events_named(simulation: Simulation, prefix: str = "inngest/") -> list[dict[str, Any]]:
    rows = simulation.store.db.execute("SELECT internal_id FROM events ORDER BY rowid").fetchall()
    events = [simulation.store.event(id) for (id,) in rows]
    return [event for event in events if event and event["name"].startswith(prefix)]


def apply(simulation: Simulation, run: RunRow, *effects: Any, now: int = 5) -> None:
    with simulation.store.transaction():
        for effect in effects:
            simulation.ledger.carry_out(run, effect, now)


@pytest.mark.parametrize(
    ("failed", "names"),
    [(False, ["finished"]), (True, ["finished", "failed"]), (None, ["finished", "cancelled"])],
)
def test_the_end_of_a_run_is_made_known_by_its_kind(failed, names):
    simulation = Simulation()
    (run,) = simulation.send(1, i=1)
    if failed is None:
        simulation.ledger.cancel(run.run_id, now=5)
    else:
        apply(simulation, run, Finish(failed=failed, output={"message": "m", "code": "c"}))
    events = events_named(simulation)
    assert [event["name"] for event in events] == [f"inngest/function.{name}" for name in names]
    assert [event["id"] == run.run_id for event in events] == [False, True][: len(names)]
    data = events[0]["data"]
    assert (data["function_id"], data["run_id"], data["event"]["data"]) == ("f", run.run_id, {"i": 1})
    assert ("result" in data, "error" in data) == (failed is not None, failed is True)


def test_a_function_that_hears_of_every_end_does_not_start_itself():
    simulation = Simulation()
    add_function(simulation.ledger, "listener", triggers=[{"event": FINISHED}])
    (run,) = simulation.send(1, i=1)
    apply(simulation, run, Finish(failed=False, output=None))
    (heard,) = simulation.store.open_runs("listener")
    apply(simulation, heard, Finish(failed=False, output=None))
    assert simulation.store.open_runs("listener") == []
    assert len(events_named(simulation)) == 1


def test_every_step_that_invoked_a_batch_gets_its_end():
    simulation = Simulation()
    add_function(simulation.ledger, "b", batchEvents={"maxSize": 2, "timeout": "5s"})
    callers = [simulation.send(1, i=i)[0] for i in range(2)]
    for run in callers:
        apply(simulation, run, Invoke("s", "b", {"data": {}}, 9_999, race=False, name="call b"))
    (batch,) = simulation.store.open_runs("b")
    apply(simulation, batch, Finish(failed=False, output=7))
    assert [simulation.store.steps(run.run_id) for run in callers] == [{"s": {"data": 7}}] * 2
    ends = events_named(simulation, FINISHED)
    assert [event["data"]["correlation_id"] for event in ends] == [f"{run.run_id}.s" for run in callers]


def test_an_invocation_says_who_calls_and_until_when():
    simulation = Simulation()
    add_function(simulation.ledger, "child")
    (run,) = simulation.send(1, i=1)
    apply(simulation, run, Invoke("s", "child", {"data": {"x": 1}, "v": "2"}, 77, race=False, name="call"))
    (child,) = simulation.store.open_runs("child")
    assert child.event["v"] == "2"
    called = child.event["data"]["_inngest"]
    assert called.pop("gid")
    assert called == {
        "fn_id": "child",
        "correlation_id": f"{run.run_id}.s",
        "expire": 77,
        "name": "call",
        "source_app_id": "app",
        "source_fn_id": run.function_id,
        "source_fn_v": 1,
    }


@pytest.mark.parametrize(("version", "calls"), [(-1, 0), (1, 1), (2, 0)])
def test_an_older_sdk_hears_of_each_parallel_steps_end(version, calls):
    simulation = Simulation()
    (run,) = simulation.send(1, i=1)
    (first,) = simulation.store.take_due(1, 10)
    plans = [Plan(id, race=False) for id in ("a", "b")]
    simulation.ledger.apply(first, replace(run, sdk_version=version), plans, now=2)
    a, _ = simulation.store.take_due(2, 10)
    simulation.ledger.apply(a, run, [Memoize("a", {"data": 1})], now=3)
    assert [job.target for job in simulation.store.take_due(3, 10)] == ["step"] * calls


def test_what_a_run_deferred_starts_once_it_has_ended_however_it_ends():
    simulation = Simulation()
    add_function(simulation.ledger, "later", triggers=[{"event": "inngest/deferred.schedule"}])
    (run,) = simulation.send(1, i=1)
    deferred = [Defer(id, "later", {"n": id}, None) for id in ("a", "a", "b")]
    apply(simulation, run, *deferred, AbortDefer("b"))
    assert simulation.store.defers(run.run_id) == {"a": {"abortable": True}, "b": {"abortable": False}}
    assert simulation.store.open_runs("later") == []
    simulation.ledger.cancel(run.run_id, now=5)
    (later,) = simulation.store.open_runs("later")
    assert later.event["data"]["n"] == "a"
    reserved = later.event["data"]["_inngest"]
    assert (reserved["fn_slug"], reserved["parent_fn_slug"]) == ("later", "f")
    assert reserved["parent_run_id"] == run.run_id
    assert simulation.store.defers(run.run_id) == {}


@pytest.mark.parametrize(
    "asked",
    [
        Defer("a", "", {}, None),
        Defer("a", "later", [1], None),
        Defer("a", "later", {"x": "x" * 4 * 2**20}, None),
        Defer("a", "later", {}, {"x": "x" * 32 * 2**10}),
    ],
)
def test_an_unfit_deferral_is_passed_over_and_not_asked_for_again(asked):
    simulation = Simulation()
    (run,) = simulation.send(1, i=1)
    apply(simulation, run, asked)
    assert simulation.store.defers(run.run_id) == {"a": {"abortable": False}}
    apply(simulation, run, Finish(failed=False, output=None))
    assert events_named(simulation, "inngest/deferred") == []


def test_a_run_defers_twenty_functions_at_most():
    simulation = Simulation()
    (run,) = simulation.send(1, i=1)
    apply(simulation, run, *[Defer(str(n), "later", {}, None) for n in range(25)])
    assert len(simulation.store.defers(run.run_id)) == 20


def test_deferrals_of_an_answer_are_noted_before_its_end_and_alone_move_it_on():
    call = Call("step", attempt=0, max_attempts=1, now=0)
    later = {"op": "DeferAdd", "id": "a", "opts": {"fn_slug": "later", "input": {}}}
    end = {"op": "RunComplete", "id": "r", "data": 1}
    noted = Defer("a", "later", {}, None)
    assert effects_of(Reply(206, {}, [end, later]), call) == [noted, Finish(failed=False, output=1)]
    assert effects_of(Reply(206, {}, [later]), call) == [noted, Discover()]


def test_events_keep_their_version_and_sessions():
    sent = {"name": "e", "v": "2026-01-01", "meta": {"sessions": {"org": "acme"}}}
    event = parse_event(sent, now=1).to_json()
    assert (event["v"], event["meta"]) == ("2026-01-01", {"sessions": {"org": "acme"}})
    assert "v" not in parse_event({"name": "e", "v": None}, now=1).to_json()
