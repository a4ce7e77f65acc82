"""Which runs start, and when: flow control applied to what triggers a function.

Called by `ledger` inside its transactions; decides with `flow_control`, writes through `store`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from flowctl.engine import flow_control
from flowctl.engine import flow_statements as sql
from flowctl.engine.cron import next_time
from flowctl.engine.ends import SCHEDULED_RUN
from flowctl.engine.expressions import InvalidExpressionError, compiled, holds
from flowctl.engine.flow_control import FlowControl, Rate, Singleton, Throttle
from flowctl.engine.meters import Meters
from flowctl.engine.metrics import Tally
from flowctl.engine.protocol import Event, Function, duration_ms, new_ulid
from flowctl.engine.store import Job, RunRow, Store
from flowctl.engine.waits import Waits

CALL, FETCH, DEBOUNCE, BATCH, CRON = "call", "fetch", "debounce", "batch", "cron"
START_TIMEOUT, FINISH_TIMEOUT, ABANDONED = "start-timeout", "finish-timeout", "abandoned"
DISCOVERY = "step"
RATE_LIMITED = "invoked function is rate limited"
RUNS_ALREADY = "invoked function is a singleton and runs already"


@dataclass(slots=True)
class Starts:
    """Begins runs as the functions' rules allow. `cancel` ends a run that a singleton replaces."""

    store: Store
    waits: Waits
    tally: Tally
    cancel: Callable[[RunRow, int], None]
    chance: Callable[[int], int] = lambda most: random.randint(0, most)  # noqa: S311 - spreads load
    meters: Meters = field(init=False)
    _rules: dict[str, tuple[Function, FlowControl]] = field(
        default_factory=dict[str, tuple[Function, FlowControl]]
    )

    def __post_init__(self) -> None:
        self.meters = Meters(self.store)

    def offer(self, function: Function, event: Event) -> str | None:
        """Start a function for an event: now, later, or together with others; answers why not at all.

        What goes into a batch is not counted by the rate limit.
        """
        rules, data, now = self._rules_of(function), event.to_json(), event.received_at
        if rules.batch is not None and holds(rules.batch.condition, {"event": data}):
            self._collect(function, rules.batch, event, now)
            return None
        if self._is_refused(function, rules.rate_limit, data, now):
            return RATE_LIMITED
        if rules.debounce is not None:
            self._debounce(function, rules.debounce, event, now)
        elif self.begin(function, [data], event.internal_id, now) is None:
            return RUNS_ALREADY
        return None

    def flush(self, function: Function | None, job: Job, *, now: int) -> None:
        """Start with the events that were held for a timer that fired."""
        rows = self.store.db.execute(sql.TAKE_HELD, (job.run_id, job.target)).fetchall()
        if function is not None and rows:
            held = sorted(rows)
            self.begin(function, [orjson.loads(body) for *_, body in held], held[-1][2], now)

    def drop_held(self, job: Job) -> list[str]:
        """Forget the events that were held for a timer; the ids of them."""
        rows = self.store.db.execute(sql.TAKE_HELD, (job.run_id, job.target)).fetchall()
        return [event_id for *_, event_id, _ in sorted(rows)]

    def begin(
        self, function: Function, events: Sequence[Mapping[str, Any]], event_id: str, now: int
    ) -> str | None:
        """Make a run due as soon as its event's time lets it; None when a singleton forbids it."""
        rules, event = self._rules_of(function), events[0]
        alone = _singleton_key(rules.singleton, event)
        if (
            alone is not None
            and rules.singleton
            and not self._is_alone(function, rules.singleton, alone, now)
        ):
            return None
        run_id, due = new_ulid(now), max(now, event["ts"]) if len(events) == 1 else now
        gates = [
            (rule.gate(function.slug, _value(rule.key, event)), rule.limit) for rule in rules.concurrency
        ]
        self.tally.runs_started += 1
        throttle = _throttle(function, rules.throttle, event)
        self.store.put_run(
            run_id, function, event_id, events, now=now, gates=gates, throttle=throttle, singleton=alone
        )
        self.waits.note_cancels(run_id, function, event)
        priority = _value(rules.priority, event) if rules.priority else None
        place = flow_control.rank(due, priority)
        self.store.db.execute(sql.PUT_FIRST_JOB, (run_id, DISCOVERY, CALL, due, place))
        if rules.start_timeout is not None:
            self.store.enqueue(run_id, START_TIMEOUT, START_TIMEOUT, now + rules.start_timeout)
        return run_id

    def began(self, run: RunRow, function: Function, now: int) -> None:
        """A run's first request is about to be made: its start is no longer waited for, its end is."""
        rules = self._rules_of(function)
        if rules.start_timeout is not None:
            self.store.db.execute(sql.DELETE_TIMER, (run.run_id, START_TIMEOUT, START_TIMEOUT))
        if rules.finish_timeout is not None:
            self.store.enqueue(run.run_id, FINISH_TIMEOUT, FINISH_TIMEOUT, now + rules.finish_timeout)

    def is_repeated(self, run: RunRow, *, was_sent: bool) -> None:
        """A run's request will be: a start that did not reach its app was none, and is throttled anew."""
        if was_sent or run.status != SCHEDULED_RUN:
            return
        row = self.store.db.execute(sql.RUN_NOT_BEGUN, (run.run_id,)).fetchone()
        if row is not None:
            self.meters.give_back(Throttle.decoded(row[0]))

    def schedule(self, functions: Iterable[Function], *, now: int) -> None:
        """Set the timers of all functions' schedules; one that is set already keeps its time.

        Those of schedules that are no longer among them are dropped.
        """
        wanted = {
            (function.slug, str(trigger["cron"]))
            for function in functions
            for trigger in function.triggers
            if trigger.get("cron")
        }
        known = set(self.store.db.execute(sql.TIMERS_OF_KIND, (CRON,)).fetchall())
        for slug, cron in known - wanted:
            self.store.db.execute(sql.DELETE_TIMER, (slug, cron, CRON))
        for slug, cron in wanted:
            self.store.enqueue(slug, cron, CRON, next_time(cron, after=now))

    def schedule_next(self, function: Function, cron: str, *, now: int) -> None:
        """Set the timer of a schedule whose time has come."""
        if _trigger(function, cron) is not None:
            self.store.enqueue(function.slug, cron, CRON, next_time(cron, after=now))

    def delay(self, function: Function, cron: str) -> int:
        """By how many milliseconds chance puts a time of a schedule off, within its jitter."""
        trigger = _trigger(function, cron) or {}
        return self.chance(duration_ms(str(trigger.get("jitter") or "0s")))

    def _rules_of(self, function: Function) -> FlowControl:
        known = self._rules.get(function.slug)
        if known is None or known[0] is not function:
            known = (function, FlowControl.of(function.config))
            self._rules[function.slug] = known
        return known[1]

    def _is_refused(self, function: Function, rate: Rate | None, event: Mapping[str, Any], now: int) -> bool:
        """Whether a start is over a function's rate limit; counts it when it is not."""
        if rate is None or (key := _value(rate.key, event)) is False:
            return False
        return not self.meters.admits(f"rate/{function.slug}/{_text(key)}", rate, now=now)

    def _is_alone(self, function: Function, rule: Singleton, key: str, now: int) -> bool:
        others = self.store.singleton_runs(function.slug, key)
        if others and rule.mode == "skip":
            return False
        for run in others:
            self.cancel(run, now)
        return True

    def _debounce(self, function: Function, rule: flow_control.Debounce, event: Event, now: int) -> None:
        key = _key(rule.key, event.to_json())
        earlier = self.store.db.execute(sql.TAKE_HELD, (function.slug, key)).fetchall()
        since = min((row[1] for row in earlier), default=now)
        self._hold(function.slug, key, event, since)
        due = flow_control.debounced_until(rule, since=since, now=now)
        self.store.db.execute(sql.PUT_TIMER, (function.slug, key, DEBOUNCE, due, due))

    def _collect(self, function: Function, rule: flow_control.Batch, event: Event, now: int) -> None:
        key = _key(rule.key, event.to_json())
        self._hold(function.slug, key, event, now)
        count = self.store.db.execute(sql.COUNT_HELD, (function.slug, key)).fetchone()[0]
        if count == 1:
            due = now + rule.timeout
            self.store.db.execute(sql.PUT_TIMER, (function.slug, key, BATCH, due, due))
        if count >= rule.size:
            self.store.db.execute(sql.DELETE_TIMER, (function.slug, key, BATCH))
            self.flush(function, Job(0, function.slug, key, BATCH, 0), now=now)

    def _hold(self, slug: str, key: str, event: Event, since: int) -> None:
        body = orjson.dumps(event.to_json())
        self.store.db.execute(sql.HOLD_EVENT, (slug, key, since, event.internal_id, body))


def _trigger(function: Function, cron: str) -> Mapping[str, Any] | None:
    return next((known for known in function.triggers if known.get("cron") == cron), None)


def _singleton_key(rule: Singleton | None, event: Mapping[str, Any]) -> str | None:
    """None for a function that is no singleton, or not for this event."""
    value = _value(rule.key, event) if rule else False
    return None if value is False else _text(value)


def _throttle(function: Function, rate: Rate | None, event: Mapping[str, Any]) -> Throttle | None:
    return rate and Throttle(f"throttle/{function.slug}/{_key(rate.key, event)}", rate)


def _key(text: str | None, event: Mapping[str, Any]) -> str:
    return _text(_value(text, event)) if text else ""


def _text(key: object) -> str:
    return "" if key is None else str(key)


def _value(text: str | None, event: Mapping[str, Any]) -> Any:
    if text is None:
        return None
    try:
        return compiled(text)({"event": event})
    except InvalidExpressionError:
        return None
