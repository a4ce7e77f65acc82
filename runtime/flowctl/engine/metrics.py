"""What the engine counts, and how Prometheus reads it.

`ledger`, `starts` and `executor` count into a `Tally` of this process; `api` writes it out, with what is
queued at that moment.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from flowctl.engine import rest_statements as sql
from flowctl.engine.store import Store

BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)


@dataclass(slots=True)
class Durations:
    """A histogram of seconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    total: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.total += seconds

    def lines(self, name: str) -> Iterable[str]:
        """As Prometheus reads it: counts up to each bound."""
        sum_so_far = 0
        for bound, count in zip((*BOUNDS_S, "+Inf"), self.counts, strict=True):
            sum_so_far += count
            yield f'{name}_bucket{{le="{bound}"}} {sum_so_far}'
        yield f"{name}_sum {self.total:.6f}"
        yield f"{name}_count {sum_so_far}"


@dataclass(slots=True)
class Tally:
    """What happened since the process began, at `began` (epoch seconds), and what happens now."""

    began: float = field(default_factory=time.time)
    events: int = 0
    runs_started: int = 0
    runs_ended: Counter[str] = field(default_factory=Counter[str])
    steps: int = 0
    database_errors: int = 0
    refused: int = 0
    requests: Counter[str] = field(default_factory=Counter[str])
    requests_in_flight: int = 0
    request_seconds: Durations = field(default_factory=Durations)
    queue_seconds: Durations = field(default_factory=Durations)


def exposition(tally: Tally, store: Store, *, now: int) -> str:
    """The text format, version 0.0.4."""
    return "\n".join([*_counters(tally), *_now(tally, store, now), *_durations(tally)]) + "\n"


def _counters(tally: Tally) -> Iterable[str]:
    ended = {status: tally.runs_ended[status] for status in ("Completed", "Failed", "Cancelled")}
    outcomes = {outcome: tally.requests[outcome] for outcome in ("answered", "broken", "unreachable")}
    yield from _metric(
        "counter",
        "flowctl_events_total",
        "Events taken in, those of the engine among them.",
        {"": tally.events},
    )
    yield from _metric("counter", "flowctl_runs_started_total", "Runs begun.", {"": tally.runs_started})
    by_status = _labelled("status", ended)
    yield from _metric("counter", "flowctl_runs_ended_total", "Runs ended, by status.", by_status)
    yield from _metric("counter", "flowctl_steps_total", "Steps that came to an end.", {"": tally.steps})
    failed = {"": tally.database_errors}
    yield from _metric("counter", "flowctl_database_errors_total", "Failures of the database.", failed)
    too_many = "Requests that were told to come again: too much is queued, or sent at once."
    yield from _metric("counter", "flowctl_refused_total", too_many, {"": tally.refused})
    by_outcome = _labelled("outcome", outcomes)
    yield from _metric("counter", "flowctl_requests_total", "Requests to apps.", by_outcome)


def _now(tally: Tally, store: Store, now: int) -> Iterable[str]:
    due, later, parked, all_jobs = store.db.execute(sql.QUEUE_DEPTH, {"now": now}).fetchone()
    states = {"due": due, "later": later, "parked": parked, "running": all_jobs - due - later - parked}
    runs = {
        f'{{function="{_escaped(slug)}",status="{status.lower()}"}}': count
        for slug, status, count in store.db.execute(sql.COUNT_OPEN_RUNS)
    }
    oldest = store.next_due()
    overdue = max(0, now - oldest) / 1000 if oldest is not None else 0
    yield from _metric("gauge", "flowctl_runs_open", "Runs that have not ended, by function.", runs)
    yield from _metric("gauge", "flowctl_queue_depth", "Jobs in the queue.", _labelled("state", states))
    yield from _metric(
        "gauge",
        "flowctl_queue_oldest_due_seconds",
        "How long the job that waits longest is due.",
        {"": overdue},
    )
    in_flight = {"": tally.requests_in_flight}
    yield from _metric("gauge", "flowctl_requests_in_flight", "Requests that apps work on.", in_flight)
    yield from _metric(
        "gauge", "process_start_time_seconds", "When counting began.", {"": round(tally.began, 3)}
    )


def _durations(tally: Tally) -> Iterable[str]:
    yield from _head("histogram", "flowctl_request_seconds", "How long apps took to answer.")
    yield from tally.request_seconds.lines("flowctl_request_seconds")
    about = "How long calls of functions waited after they were due, at limits of concurrency too."
    yield from _head("histogram", "flowctl_queue_latency_seconds", about)
    yield from tally.queue_seconds.lines("flowctl_queue_latency_seconds")


def _metric(kind: str, name: str, about: str, values: Mapping[str, float]) -> Iterable[str]:
    yield from _head(kind, name, about)
    for labels, value in values.items():
        yield f"{name}{labels} {value}"


def _head(kind: str, name: str, about: str) -> Iterable[str]:
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} {kind}"


def _labelled(label: str, values: Mapping[str, int]) -> dict[str, int]:
    return {f'{{{label}="{value.lower()}"}}': count for value, count in values.items()}


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
