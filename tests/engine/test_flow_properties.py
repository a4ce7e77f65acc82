"""What flow control promises, whatever events come and whenever they come."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_starts import Simulation

from flowctl.engine.flow_control import DAY_MS, PRIORITY_BOUND_MS, FlowControl, admitted, opening, rank
from flowctl.engine.gates import Gates
from flowctl.engine.starts import CALL, CRON
from flowctl.engine.store import Job
from flowctl.engine.timers import Timers
from flowctl.engine.turn import Call, unreached

few = settings(max_examples=40)
moment = st.integers(1, 48).map(lambda quarter: quarter * 250)
moments = st.lists(moment, min_size=1, max_size=25).map(sorted)
keyed_moments = st.lists(st.tuples(moment, st.sampled_from("ab")), max_size=25).map(sorted)
hours = st.integers(0, 12).map(lambda count: count * 6 * 3_600_000)
BY_KEY = {"key": "event.data.k"}
END = 100_000


@few
@given(times=moments, timeout=st.none() | st.integers(1, 6))
def test_a_debounce_starts_with_the_last_event_after_a_quiet_period_or_at_its_timeout(times, timeout):
    more = {} if timeout is None else {"timeout": f"{timeout}s"}
    simulation = Simulation(debounce={"period": "2s", **more})
    for i, at in enumerate(times):
        simulation.send(at, i=i)
    simulation.pass_to(END)
    left = list(enumerate(times))
    for at, events in simulation.starts:
        taken, left = [e for e in left if e[1] < at], [e for e in left if e[1] >= at]
        (_, first), (last_i, last) = taken[0], taken[-1]
        assert events == [last_i]
        assert at == min(last + 2000, END if timeout is None else first + timeout * 1000)
    assert left == []


@few
@given(times=keyed_moments, size=st.integers(2, 5))
def test_each_event_is_in_one_batch_of_its_key_in_order_and_starts_when_full_or_at_the_timeout(times, size):
    simulation = Simulation(batchEvents={"maxSize": size, "timeout": "3s", **BY_KEY})
    for i, (at, k) in enumerate(times):
        simulation.send(at, i=i, k=k)
    simulation.pass_to(END)
    for key in "ab":
        batches = [start for start in simulation.starts if times[start.events[0]][1] == key]
        assert [i for _, events in batches for i in events] == [
            i for i, (_, k) in enumerate(times) if k == key
        ]
        for at, events in batches:
            first, last = times[events[0]][0], times[events[-1]][0]
            assert at == (last if len(events) == size else first + 3000)
            assert len(events) <= size


def test_a_rate_limit_counts_only_events_that_stay_out_of_the_batch():
    rules = {"rateLimit": {"limit": 1, "period": "1h"}}
    simulation = Simulation(batchEvents={"maxSize": 2, "timeout": "3s", "if": "event.data.i < 4"}, **rules)
    for i in range(6):
        simulation.send(1, i=i)
    simulation.pass_to(END)
    assert [events for _, events in simulation.starts] == [[0, 1], [2, 3], [4]]


@few
@given(times=moments, limit=st.integers(1, 4), burst=st.integers(0, 3))
def test_a_throttle_starts_all_in_order_and_no_more_than_limit_and_burst_in_a_period(times, limit, burst):
    simulation = Simulation(throttle={"limit": limit, "period": "2s", "burst": burst})
    for i, at in enumerate(times):
        simulation.send(at, i=i)
    simulation.pass_to(END)
    starts = [at for at, _ in simulation.starts]
    assert [events for _, events in simulation.starts] == [[i] for i in range(len(times))]
    for at in starts:
        assert sum(at <= other < at + 2000 for other in starts) <= limit + burst + 1  # rounded moments


@few
@given(times=moments, stops=st.lists(moment, max_size=4), limit=st.integers(1, 3), burst=st.integers(0, 2))
def test_a_throttle_holds_over_outages_and_lets_nothing_wait_longer_than_it_must(times, stops, limit, burst):
    config = {"throttle": {"limit": limit, "period": "3s", "burst": burst}}
    simulation, rate, arrival = Simulation(**config), FlowControl.of(config).throttle, None
    for at, i in sorted([(at, i) for i, at in enumerate(times)] + [(at, -1) for at in stops]):
        if i < 0:
            simulation.was_out_until(at)
        else:
            simulation.send(at, i=i)
    simulation.pass_to(END)
    assert [events for _, events in simulation.starts] == [[i] for i in range(len(times))]
    for at, (i,) in simulation.starts:
        assert at in {times[i], *stops} or (arrival and at == opening(arrival, rate))
        arrival = admitted(arrival, rate, now=at)
        assert arrival is not None


def test_a_throttle_counts_for_each_value_of_its_key():
    simulation = Simulation(throttle={"limit": 1, "period": "2s", **BY_KEY})
    for i, k in enumerate("aabb"):
        simulation.send(1, i=i, k=k)
    simulation.pass_to(2001)
    assert simulation.next_moment() is None
    assert sorted(simulation.starts) == [(1, [0]), (1, [2]), (2001, [1]), (2001, [3])]


def test_a_new_process_leaves_the_runs_parked_that_wait_for_a_throttle_and_starts_them_in_time():
    simulation = Simulation(throttle={"limit": 1, "period": "2s", **BY_KEY})
    for i, k in enumerate("aabb"):
        simulation.send(1, i=i, k=k)
    simulation.pass_to(1)
    simulation.was_out_until(1000)
    assert simulation.store.next_due() is None
    simulation.pass_to(END)
    assert sorted(simulation.starts[2:]) == [(2001, [1]), (2001, [3])]


def test_a_new_process_leaves_the_runs_parked_that_wait_at_a_full_limit_and_lets_in_the_next():
    simulation = Simulation(concurrency=[{"limit": 2, "scope": "fn"}])
    for i in range(50):
        simulation.take_in(0, i=i)
    jobs = simulation.store.take_due(0, 50)
    assert [simulation.gates.enter(job, now=0) for job in jobs] == [True] * 2 + [False] * 48
    simulation.was_out_until(-1)
    assert [job.id for job in simulation.store.take_due(0, 50)] == [job.id for job in jobs[:2]]
    simulation.was_out_until(0)
    while simulation.gates.unpark(now=0, idle=True):
        simulation.work(0)
    assert sorted(i for start in simulation.starts for i in start.events) == list(range(50))


def test_a_run_that_waits_for_its_throttle_gives_its_turn_to_the_next_when_it_is_cancelled():
    simulation = Simulation(throttle={"limit": 1, "period": "2s"})
    runs = [simulation.send(1, i=i)[0] for i in range(3)]
    simulation.pass_to(1)
    simulation.ledger.cancel(runs[1].run_id, now=2)
    simulation.pass_to(END)
    assert simulation.starts == [(1, [0]), (2001, [2])]


def test_a_start_that_did_not_reach_its_app_was_not_counted_and_is_throttled_anew():
    simulation = Simulation(throttle={"limit": 1, "period": "2s"})
    ledger, (run,) = simulation.ledger, simulation.send(1, i=0)
    (job,) = simulation.store.take_due(1, 9)
    assert simulation.gates.enter(job, now=1)
    ledger.begin(run, ledger.functions["f"], now=1)
    ledger.apply(job, run, [unreached(Call("step", 0, 4, now=1), 0)], now=1)
    simulation.send(50, i=1)
    simulation.pass_to(END)
    assert simulation.starts == [(50, [1]), (2001, [0])]


def test_a_run_that_finds_its_concurrency_limit_full_is_not_counted_by_its_throttle():
    simulation = Simulation(throttle={"limit": 1, "period": "2s"}, concurrency=1)
    simulation.gates.held.update(["fn/f//"])
    simulation.send(1, i=0)
    simulation.pass_to(1)
    del simulation.gates.held["fn/f//"]
    simulation.was_out_until(1500)
    simulation.send(1500, i=1)
    simulation.pass_to(END)
    assert simulation.starts == [(1500, [0]), (3500, [1])]


@few
@given(times=keyed_moments, limit=st.integers(1, 4))
def test_a_rate_limit_refuses_exactly_what_comes_before_its_keys_next_place(times, limit):
    simulation = Simulation(rateLimit={"limit": limit, "period": "4s", **BY_KEY})
    next_place = {"a": 0.0, "b": 0.0}
    for i, (at, k) in enumerate(times):
        has_started = len(simulation.send(at, i=i, k=k)) == 1
        assert has_started == (at >= next_place[k])
        if has_started:
            next_place[k] = at + 4000 / limit


@pytest.mark.parametrize("rule", ["rateLimit", "idempotency", "singleton"])
def test_an_event_for_which_a_key_is_false_is_not_counted(rule):
    key = "event.data.i > 1 ? event.data.k : false"
    rules = {"rateLimit": {"limit": 1, "period": "1h", "key": key}, "singleton": {"key": key}}
    simulation = Simulation(**{rule: rules.get(rule, key)})
    assert [len(simulation.send(1, i=i, k="a")) for i in range(5)] == [1, 1, 1, 0, 0]


@few
@given(ahead=st.integers(-5, 5).map(lambda s: s * 1000))
def test_an_event_of_the_future_starts_its_run_when_its_time_comes(ahead):
    simulation = Simulation()
    simulation.send(10_000, ts=10_000 + ahead, i=1)
    simulation.pass_to(END)
    assert [start.at for start in simulation.starts] == [10_000 + max(ahead, 0)]


@few
@given(st.lists(st.tuples(hours, st.sampled_from("ab")), max_size=12).map(sorted))
def test_an_idempotency_key_starts_the_first_run_and_no_other_within_a_day(times):
    simulation = Simulation(idempotency="event.data.k")
    started: dict[str, int] = {}
    for at, k in times:
        is_new = k not in started or at >= started[k] + DAY_MS
        assert len(simulation.send(at, i=0, k=k)) == is_new
        if is_new:
            started[k] = at


@few
@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from("ab")), max_size=20),
    st.sampled_from(["skip", "cancel"]),
)
def test_a_singleton_has_one_open_run_a_key_the_oldest_or_the_newest(events, mode):
    simulation = Simulation(singleton={"mode": mode, **BY_KEY})
    expected, began = {}, []
    for at, (ends, k) in enumerate(events):
        if ends and k in expected:
            simulation.finish(expected.pop(k), now=at)
        runs = simulation.send(at, i=at, k=k)
        began += runs
        if mode == "cancel" or k not in expected:
            (expected[k],) = runs
        is_open = {run.run_id for run in began if simulation.is_open(run)}
        assert is_open == {run.run_id for run in expected.values()}


@few
@given(
    sent=st.lists(st.tuples(st.integers(0, 50), st.integers(-50_000, 50_000)), max_size=20).map(sorted),
    room=st.integers(1, 5),
)
def test_runs_are_taken_by_time_and_priority_and_as_they_came_when_those_are_equal(sent, room):
    simulation, now = Simulation(priority={"run": "event.data.p"}), 2 * PRIORITY_BOUND_MS
    for i, (at, p) in enumerate(sent):
        simulation.take_in(now + at, i=i, p=p)
    places = [i for _, i in sorted((rank(now + at, p), i) for i, (at, p) in enumerate(sent))]
    assert simulation.take_all(now + 50, room) == places


@given(st.integers(0, 10**13), st.integers())
def test_a_priority_moves_a_run_to_its_side_within_its_bounds(now, priority):
    place = rank(now, priority)
    assert abs(place - now) <= PRIORITY_BOUND_MS
    assert (now - place) * priority >= 0
    assert rank(now, priority) >= rank(now, priority + 1)


@few
@given(
    keys=st.lists(st.sampled_from("ab"), max_size=12),
    limits=st.tuples(st.integers(1, 4), st.integers(1, 3)),
    turns=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3), st.booleans()), max_size=12),
)
def test_concurrency_never_lets_in_more_than_its_limits_and_lets_all_pass(keys, limits, turns):
    total, per_key = limits
    simulation = Simulation(concurrency=[total, {"limit": per_key, **BY_KEY}])
    for i, k in enumerate(keys):
        simulation.take_in(1, i=i, k=k)
    crowd = Crowd(simulation)
    for now, (room, leaving, idle) in enumerate([*turns, *[(100, 100, True)] * len(keys)], start=2):
        crowd.leave(leaving)
        crowd.enter(room, now=now, idle=idle)
        inside = Counter(keys[i] for i in crowd.inside)
        assert inside.total() <= total
        assert max(inside.values(), default=0) <= per_key
    assert sorted(crowd.seen) == list(range(len(keys)))


def test_a_schedule_with_jitter_fires_once_a_time_within_it():
    simulation = Simulation(triggers=[{"cron": "0 * * * *", "jitter": "90s"}])
    ledger, hour = simulation.ledger, 3_600_000
    ledger.starts.chance = lambda most: most // 3
    with simulation.store.transaction():
        ledger.starts.schedule(ledger.functions.values(), now=0)
    for n in (1, 2, 3):
        assert simulation.store.take_due(n * hour - 1, 9) == []
        (job,) = simulation.store.take_due(n * hour, 9)
        assert job.kind == CRON
        Timers(ledger).fire(job, now=n * hour)
        assert simulation.store.take_due(n * hour + 29_999, 9) == []
        (first_call,) = simulation.store.take_due(n * hour + 30_000, 9)
        assert first_call.kind == CALL


def test_a_jitter_longer_than_the_time_between_two_of_a_schedule_leaves_none_out():
    simulation = Simulation(triggers=[{"cron": "* * * * *", "jitter": "5m"}])
    ledger, minute = simulation.ledger, 60_000
    ledger.starts.chance = lambda most: most
    with simulation.store.transaction():
        ledger.starts.schedule(ledger.functions.values(), now=0)
    for n in range(1, 5):
        (job,) = simulation.store.take_due(n * minute, 9)
        Timers(ledger).fire(job, now=n * minute)
    assert len(simulation.store.take_due(10 * minute, 99)) == 5


def test_what_a_schedule_starts_late_knows_the_time_that_it_was_due():
    simulation = Simulation(triggers=[{"cron": "0 * * * *", "jitter": "90s"}])
    ledger = simulation.ledger
    ledger.starts.chance = lambda most: most // 3
    with simulation.store.transaction():
        ledger.starts.schedule(ledger.functions.values(), now=0)
    (job,) = simulation.store.take_due(9_000_000, 9)
    Timers(ledger).fire(job, now=9_000_000)
    (first_call,) = (job for job in simulation.store.take_due(9_000_000, 9) if job.kind == CALL)
    [event] = simulation.store.run(first_call.run_id).events
    assert (event["id"], event["ts"]) == ("1970-01-01T01:00:00Z", 3_630_000)
    assert event["data"] == {
        "cron": "0 * * * *",
        "scheduledAt": "1970-01-01T01:00:00Z",
        "fireAt": "1970-01-01T01:00:30Z",
    }


def test_a_run_keeps_its_place_at_a_limit_of_runs_until_it_ends():
    simulation = Simulation(concurrency={"fn": [{"limit": 1, **BY_KEY}]})
    runs = [simulation.take_in(1, i=i, k="a")[0] for i in range(2)]
    crowd = Crowd(simulation)
    crowd.enter(10, now=2, idle=True)
    crowd.leave(1)
    crowd.enter(10, now=3, idle=True)
    assert crowd.seen == [0]
    simulation.store.enqueue(runs[0].run_id, "step", CALL, 4)
    crowd.enter(10, now=4, idle=True)
    assert crowd.seen == [0, 0]
    simulation.finish(runs[0], now=5)
    crowd.enter(10, now=6, idle=True)
    assert crowd.seen == [0, 0, 1]


class Crowd:
    """Jobs that come to a function's gates, and go."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation, self.gates = simulation, Gates(simulation.store)
        self.inside: dict[int, Job] = {}
        self.seen: list[int] = []

    def leave(self, count: int) -> None:
        for i in list(self.inside)[:count]:
            job = self.inside.pop(i)
            self.gates.leave(job)
            self.simulation.ledger.drop(job)

    def enter(self, room: int, *, now: int, idle: bool) -> None:
        store = self.simulation.store
        self.gates.unpark(now=now, idle=idle)
        for job in store.take_due(now, room):
            if self.gates.enter(job, now=now):
                (i,) = self.simulation.events_of(job)
                self.inside[i] = job
                self.seen.append(i)
