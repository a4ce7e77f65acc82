"""Flow control as pure decisions: a function's rules, read once, and what they say at a moment.

`starts` applies them to the store when events come in, `gates` and `throttles` when jobs are taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, floor
from typing import Any, Literal

import orjson

from flowctl.engine.protocol import duration_ms

DAY_MS = 24 * 3_600_000
PRIORITY_BOUND_MS = 12 * 3_600_000
BATCH_TIMEOUT_MS = 60_000
THROTTLE_SLACK_MS = 100
RUN_SCOPE = "run"


@dataclass(frozen=True, slots=True)
class Concurrency:
    """At most `limit` requests at once for each value of `key` in a scope; in `RUN_SCOPE` so many runs."""

    limit: int
    key: str | None
    scope: str

    def gate(self, slug: str, value: object) -> str:
        """The name of what is shared by all that this limit counts together."""
        owner = slug if self.scope in {"fn", RUN_SCOPE} else self.key or ""
        return f"{self.scope}/{owner}/{self.key or ''}/{value if self.key else ''}"


@dataclass(frozen=True, slots=True)
class Rate:
    """`limit` starts in a period, evenly, for each value of `key`; so many as `burst` ahead of their time.

    A start that is late by `slack` milliseconds at most puts off none of those after it.
    """

    limit: int
    period: int
    key: str | None
    burst: int = 0
    slack: int = 0

    @property
    def interval(self) -> float:
        """Milliseconds from one start to the next."""
        return self.period / self.limit


@dataclass(frozen=True, slots=True)
class Throttle:
    """The rate at which runs start, and the name of what it counts together; kept with each run."""

    name: str
    rate: Rate

    @classmethod
    def decoded(cls, stored: bytes) -> Throttle:
        """As it was kept, encoded as JSON."""
        raw = orjson.loads(stored)
        return cls(raw["name"], Rate(**raw["rate"]))


@dataclass(frozen=True, slots=True)
class Debounce:
    """Start with the last event, once none came for a period (or the timeout is over)."""

    period: int
    timeout: int | None
    key: str | None


@dataclass(frozen=True, slots=True)
class Batch:
    """Start once for up to `size` events; those that fail the condition start alone."""

    size: int
    timeout: int
    key: str | None
    condition: str | None


@dataclass(frozen=True, slots=True)
class Singleton:
    """One run at a time for each value of `key`: a newer one is skipped, or cancels the older."""

    mode: Literal["skip", "cancel"]
    key: str | None


@dataclass(frozen=True, slots=True)
class FlowControl:
    """The rules of one function."""

    concurrency: tuple[Concurrency, ...] = ()
    throttle: Rate | None = None
    rate_limit: Rate | None = None
    debounce: Debounce | None = None
    batch: Batch | None = None
    singleton: Singleton | None = None
    priority: str | None = None
    start_timeout: int | None = None
    finish_timeout: int | None = None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> FlowControl:
        """Of a function in a registration without faults."""
        timeouts = config.get("timeouts") or {}
        return cls(
            concurrency=_concurrency(config.get("concurrency")),
            throttle=_throttle(config.get("throttle")),
            rate_limit=_rate_limit(config),
            debounce=_debounce(config.get("debounce")),
            batch=_batch(config.get("batchEvents")),
            singleton=_singleton(config.get("singleton")),
            priority=(config.get("priority") or {}).get("run"),
            start_timeout=_span(timeouts.get("start")),
            finish_timeout=_span(timeouts.get("finish")),
        )


def admitted(arrival: float | None, rate: Rate, *, now: int) -> float | None:
    """The theoretical arrival time after one more start (generic cell rate), or None when it is refused."""
    expected = expected_at(arrival, rate, now=now)
    return None if expected - rate.burst * rate.interval > now else expected + rate.interval


def expected_at(arrival: float | None, rate: Rate, *, now: int) -> float:
    """The moment from which the next start counts: its theoretical arrival time unless that is long past."""
    return now if arrival is None or arrival < now - rate.slack else arrival


def room_of(arrival: float | None, rate: Rate, *, now: int) -> int:
    """How many starts are admitted at once, one after the other."""
    expected = expected_at(arrival, rate, now=now)
    return max(0, floor((now - expected) / rate.interval + rate.burst) + 1)


def opening(arrival: float, rate: Rate) -> int:
    """The first moment at which a start is admitted."""
    return ceil(arrival - rate.burst * rate.interval)


def debounced_until(rule: Debounce, *, since: int, now: int) -> int:
    """When a debounced function starts, if no event comes before; the first came at `since`."""
    quiet = now + rule.period
    return quiet if rule.timeout is None else max(now, min(quiet, since + rule.timeout))


def rank(now: int, priority: object) -> int:
    """The place in the queue: a time, moved by the priority's whole seconds, twelve hours at most."""
    if isinstance(priority, bool) or not isinstance(priority, int):
        return now
    return now - max(-PRIORITY_BOUND_MS, min(PRIORITY_BOUND_MS, priority * 1000))


def full_gate(gates: Sequence[tuple[str, int]], held: Mapping[str, int]) -> str | None:
    """The first gate with no room, or None when all let pass."""
    return next((name for name, limit in gates if held.get(name, 0) >= limit), None)


def _span(text: Any) -> int | None:
    return duration_ms(text) if text else None


def _concurrency(raw: Any) -> tuple[Concurrency, ...]:
    """A number, one limit, a list of them, or `{"fn": limits of runs, "step": limits of requests}`."""
    if isinstance(raw, Mapping) and "limit" not in raw:
        of_runs = [_run_concurrency(entry) for entry in raw.get("fn") or ()]
        return (*_concurrency(raw.get("step")), *of_runs)
    entries = raw if isinstance(raw, list) else [raw] if raw else []
    return tuple(rule for entry in entries if (rule := _one_concurrency(entry)).limit > 0)


def _one_concurrency(entry: Any) -> Concurrency:
    if isinstance(entry, int):
        return Concurrency(entry, None, "fn")
    scope = (entry.get("scope") or "fn").lower()
    return Concurrency(entry["limit"], entry.get("key") or None, scope)


def _run_concurrency(entry: Mapping[str, Any]) -> Concurrency:
    return Concurrency(entry["limit"], entry.get("key") or None, RUN_SCOPE)


def _rate_limit(config: Mapping[str, Any]) -> Rate | None:
    """An idempotency key is a rate limit of one start a day, in place of one that is given beside it."""
    if key := config.get("idempotency"):
        return Rate(1, DAY_MS, key)
    rate = _rate(config.get("rateLimit"))
    return rate and replace(rate, burst=rate.limit // 10)


def _throttle(raw: Any) -> Rate | None:
    rate = _rate(raw)
    return rate and replace(rate, slack=THROTTLE_SLACK_MS)


def _rate(raw: Any) -> Rate | None:
    if not raw:
        return None
    return Rate(raw["limit"], duration_ms(raw["period"]), raw.get("key") or None, raw.get("burst") or 0)


def _debounce(raw: Any) -> Debounce | None:
    if not raw:
        return None
    return Debounce(duration_ms(raw["period"]), _span(raw.get("timeout")), raw.get("key") or None)


def _batch(raw: Any) -> Batch | None:
    if not raw:
        return None
    timeout = _span(raw.get("timeout"))
    timeout = BATCH_TIMEOUT_MS if timeout is None else timeout
    return Batch(raw["maxSize"], timeout, raw.get("key") or None, raw.get("if") or None)


def _singleton(raw: Any) -> Singleton | None:
    if not raw:
        return None
    mode = "cancel" if (raw.get("mode") or "").lower() == "cancel" else "skip"
    return Singleton(mode, raw.get("key") or None)
