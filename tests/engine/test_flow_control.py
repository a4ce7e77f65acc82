from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowctl.engine.cron import InvalidCronError, next_time
from flowctl.engine.flow_control import (
    Debounce,
    FlowControl,
    Rate,
    Window,
    admitted,
    debounced_until,
    full_gate,
    rank,
    throttled,
)

moments = st.lists(st.integers(0, 100_000), min_size=1, max_size=60).map(sorted)
HOUR = 3_600_000


@given(times=moments, limit=st.integers(1, 5), period=st.integers(1, 20_000))
def test_a_rate_limit_never_admits_more_than_its_limit_from_a_windows_first_start(times, limit, period):
    window: Window | None = None
    starts: Counter[int] = Counter()
    for now in times:
        after = admitted(window, limit=limit, period=period, now=now)
        if after is None:
            assert window is not None
            assert now < window.began + period
            continue
        window = after
        starts[window.began] += 1
    assert max(starts.values()) <= limit


@given(times=moments, limit=st.integers(1, 5), period=st.integers(100, 20_000), burst=st.integers(1, 4))
def test_throttled_starts_keep_order_and_exceed_the_rate_by_no_more_than_the_burst(
    times, limit, period, burst
):
    rate, arrival, starts = Rate(limit, period, None, burst), None, []
    for now in times:
        start, arrival = throttled(arrival, rate, now=now)
        assert start >= now
        starts.append(start)
    assert starts == sorted(starts)
    for start in starts:
        within = [other for other in starts if start <= other < start + period - len(starts)]
        assert len(within) <= limit + burst


def test_throttle_lets_a_burst_pass_at_once_and_spaces_what_follows():
    rate, arrival, starts = Rate(limit=2, period=1000, key=None, burst=2), None, []
    for _ in range(4):
        start, arrival = throttled(arrival, rate, now=0)
        starts.append(start)
    assert starts == [0, 0, 500, 1000]


@given(st.integers(0, 1000), st.integers(0, 1000), st.integers(0, 500), st.none() | st.integers(0, 800))
def test_a_debounce_waits_a_period_but_never_past_its_timeout(since, later, period, timeout):
    now = since + later
    due = debounced_until(Debounce(period, timeout, None), since=since, now=now)
    assert now <= due <= now + period
    if timeout is not None:
        assert due <= max(now, since + timeout)


def test_priority_moves_a_run_by_ten_minutes_at_most():
    assert rank(HOUR, 120) == HOUR - 120_000
    assert rank(HOUR, -9999) == HOUR + 600_000
    assert rank(HOUR, "high") == HOUR


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
    assert rules.throttle == Rate(10, 60_000, None, 2)
    assert (rules.batch and rules.batch.timeout, rules.start_timeout, rules.finish_timeout) == (
        2000,
        10_000,
        None,
    )


@pytest.mark.parametrize(
    "config",
    [{"rateLimit": {"limit": 0, "period": "1m"}}, {"throttle": {"limit": 1, "period": "soon"}}],
)
def test_malformed_rules_are_refused(config):
    with pytest.raises(ValueError, match="'"):
        FlowControl.of(config)


def test_cron_schedules_follow_their_time_zone():
    assert next_time("* * * * *", after=0) == 60_000
    assert next_time("TZ=Europe/Paris 0 9 * * *", after=0) == 8 * HOUR
    assert next_time("*/30 * * * * *", after=0) == 30_000


@pytest.mark.parametrize("text", ["whenever", "TZ=Mars/Base 0 9 * * *", "61 * * * *"])
def test_a_schedule_that_is_none_is_refused_by_name(text):
    with pytest.raises(InvalidCronError, match=text.split()[0].removeprefix("TZ=").replace("*", r"\*")):
        next_time(text, after=0)
