from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from math import ceil, isclose

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowctl.engine.cron import InvalidCronError, next_time
from flowctl.engine.flow_control import (
    THROTTLE_SLACK_MS,
    Debounce,
    FlowControl,
    Rate,
    Throttle,
    admitted,
    debounced_until,
    full_gate,
    opening,
    rank,
    room_of,
)

moments = st.lists(st.integers(0, 100_000), min_size=1, max_size=60).map(sorted)
HOUR = 3_600_000


rates = st.builds(
    Rate,
    limit=st.integers(1, 5),
    period=st.integers(100, 20_000),
    key=st.none(),
    burst=st.integers(0, 4),
    slack=st.integers(0, 100),
)


@given(times=moments, rate=rates)
def test_a_rate_limit_admits_no_more_than_its_rate_and_burst_and_refuses_only_what_exceeds_it(times, rate):
    arrival, starts = None, []
    for now in times:
        after = admitted(arrival, rate, now=now)
        ahead = 0 if arrival is None else (arrival - now) / rate.interval
        assert isclose(ahead, rate.burst) or (after is None) == (ahead > rate.burst)
        if after is not None:
            arrival, starts = after, [*starts, now]
    most = rate.limit + rate.burst + ceil(rate.slack / rate.interval)
    for start in starts:
        assert sum(start <= other < start + rate.period for other in starts) <= most


def test_a_refused_start_does_not_delay_the_next_one_that_is_admitted():
    rate = Rate(limit=2, period=1000, key=None)
    arrival = admitted(None, rate, now=0)
    assert arrival == 500
    assert [admitted(arrival, rate, now=now) for now in (0, 499)] == [None, None]
    assert admitted(arrival, rate, now=500) == 1000


def test_a_start_puts_off_those_after_it_only_when_it_is_later_than_the_slack():
    rate = Rate(limit=1, period=1000, key=None, slack=100)
    assert [admitted(1000.0, rate, now=now) for now in (1000, 1100, 1101)] == [2000, 2000, 2101]


@given(
    now=st.integers(0, 100_000),
    ahead=st.none() | st.integers(-9_000, 90_000),
    rate=rates.map(lambda rate: replace(rate, period=rate.limit * rate.period)),  # whole milliseconds apart
)
def test_there_is_room_for_as_many_starts_as_are_admitted_one_after_the_other(now, ahead, rate):
    arrival, count = None if ahead is None else float(now + ahead), 0
    room = room_of(arrival, rate, now=now)
    while (after := admitted(arrival, rate, now=now)) is not None:
        arrival, count = after, count + 1
    assert room == count


@given(arrival=st.floats(0, 100_000), rate=rates)
def test_a_rate_opens_at_the_first_millisecond_that_admits_a_start(arrival, rate):
    at = opening(arrival, rate)
    assert admitted(arrival, rate, now=at) is not None
    assert admitted(arrival, rate, now=at - 1) is None


def test_a_throttle_is_read_again_as_it_was_kept():
    throttle = Throttle("throttle/f/ü", Rate(limit=3, period=1000, key="event.data.k", burst=1))
    assert Throttle.decoded(orjson.dumps(throttle)) == throttle


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 500), st.none() | st.integers(0, 800))
def test_a_debounce_waits_a_period_but_never_past_its_timeout(since, later, period, timeout):
    now = since + later
    due = debounced_until(Debounce(period, timeout, None), since=since, now=now)
    assert now <= due <= now + period
    if timeout is not None:
        assert due <= max(now, since + timeout)


def test_priority_moves_a_run_by_twelve_hours_at_most():
    assert rank(HOUR, 120) == HOUR - 120_000
    assert rank(HOUR, -99_999) == HOUR + 12 * HOUR
    assert [rank(HOUR, ignored) for ignored in ("high", 1.5, True, None)] == [HOUR] * 4


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 3)), max_size=3), st.data())
def test_a_gate_is_full_exactly_when_its_limit_is_held(gates, data):
    held = {name: data.draw(st.integers(0, 4)) for name, _ in gates}
    full = full_gate(gates, held)
    assert (full is None) == all(held[name] < limit for name, limit in gates)


def test_a_registration_is_read_into_rules():
    rules = FlowControl.of(
        {
            "concurrency": [3, {"limit": 2, "key": "event.data.k", "scope": "account"}],
            "throttle": {"limit": 10, "period": "1m", "burst": 2},
            "batchEvents": {"maxSize": 3, "timeout": "2s"},
            "timeouts": {"start": "10s"},
        }
    )
    assert [rule.limit for rule in rules.concurrency] == [3, 2]
    assert rules.concurrency[1].gate("app-a", "x") == rules.concurrency[1].gate("app-b", "x")
    assert rules.throttle == Rate(10, 60_000, None, 2, THROTTLE_SLACK_MS)
    assert (rules.batch and rules.batch.timeout, rules.start_timeout, rules.finish_timeout) == (
        2000,
        10_000,
        None,
    )


def test_a_concurrency_limit_of_runs_stands_beside_those_of_requests():
    raw = {"fn": [{"limit": 1, "key": "event.data.k"}], "step": [{"limit": 5, "scope": "Fn"}]}
    of_requests, of_runs = FlowControl.of({"concurrency": raw}).concurrency
    assert (of_requests.limit, of_requests.scope) == (5, "fn")
    assert (of_runs.limit, of_runs.gate("a-f", 7)) == (1, "run/a-f/event.data.k/7")
    assert FlowControl.of({"concurrency": {"fn": [], "step": []}}).concurrency == ()


def test_an_idempotency_key_takes_the_place_of_a_rate_limit():
    rules = FlowControl.of({"idempotency": "event.id", "rateLimit": {"limit": 5, "period": "1m"}})
    assert rules.rate_limit == Rate(1, 24 * HOUR, "event.id")


def test_a_tenth_of_a_rate_limit_may_come_ahead_of_its_time():
    limits = [FlowControl.of({"rateLimit": {"limit": n, "period": "1m"}}).rate_limit for n in (9, 10, 35)]
    assert [limit and limit.burst for limit in limits] == [0, 1, 3]


def test_cron_schedules_follow_their_time_zone():
    assert next_time("* * * * *", after=0) == 60_000
    assert next_time("TZ=Europe/Paris 0 9 * * *", after=0) == 8 * HOUR
    assert next_time("*/30 * * * * *", after=0) == 30_000
    assert next_time("0 9 ? * THU", after=0) == 9 * HOUR


@pytest.mark.parametrize(
    ("eve", "times"),
    [
        ((2030, 3, 30), ["30 01:30", "31 01:00", "01 00:30"]),
        ((2030, 10, 26), ["26 00:30", "27 00:30", "28 01:30"]),
    ],
)
def test_a_schedule_comes_once_a_day_when_the_clock_is_put_forward_or_back(eve, times):
    now, told = int(datetime(*eve, tzinfo=UTC).timestamp() * 1000), []
    for _ in times:
        now = next_time("TZ=Europe/Berlin 30 2 * * *", after=now)
        told.append(f"{datetime.fromtimestamp(now / 1000, UTC):%d %H:%M}")
    assert told == times


@pytest.mark.parametrize("text", ["whenever", "TZ=Mars/Base 0 9 * * *", "61 * * * *"])
def test_a_schedule_that_is_none_is_refused_by_name(text):
    with pytest.raises(InvalidCronError, match=text.split()[0].removeprefix("TZ=").replace("*", r"\*")):
        next_time(text, after=0)
