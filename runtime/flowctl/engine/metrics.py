"""What the engine counts, and how Prometheus reads it.

`ledger`, `starts` and `executor` count into a `Tally` of this process; `api` writes it out, with what is
queued at that moment.
"""

from __future__ import annotations

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
    """What happened since the process began."""

    events: int = 0
    runs_started: int = 0
    runs_ended: Counter[str] = field(default_factory=Counter[str])
    steps: int = 0
    requests: Counter[str] = field(default_factory=Counter[str])
    request_seconds: Durations = field(default_factory=Durations)


def exposition(tally: Tally, store: Store, *, now: int) -> str:
    """The text format, version 0.0.4."""
    queue = dict(store.db.execute(sql.QUEUE_DEPTH, {"now": now}).fetchall())
    open_runs = store.db.execute(sql.COUNT_OPEN_RUNS).fetchone()[0]
    states = {state: queue.get(state, 0) for state in ("due", "later", "running", "parked")}
    ended = {status: tally.runs_ended[status] for status in ("Completed", "Failed", "Cancelled")}
    answered = {outcome: tally.requests[outcome] for outcome in ("answered", "broken", "unreachable")}
    lines = [
        *_counter("flowctl_events_total", "Events taken in.", {"": tally.events}),
        *_counter("flowctl_runs_started_total", "Runs begun.", {"": tally.runs_started}),
        *_counter("flowctl_runs_ended_total", "Runs ended, by status.", _labelled("status", ended)),
        *_counter("flowctl_steps_total", "Steps that came to an end.", {"": tally.steps}),
        *_counter("flowctl_requests_total", "Requests to apps.", _labelled("outcome", answered)),
        *_metric("gauge", "flowctl_runs_open", "Runs that have not ended.", {"": open_runs}),
        *_metric("gauge", "flowctl_queue_depth", "Jobs in the queue.", _labelled("state", states)),
        *_head("histogram", "flowctl_request_seconds", "How long apps took to answer."),
        *tally.request_seconds.lines("flowctl_request_seconds"),
    ]
    return "\n".join(lines) + "\n"


def _counter(name: str, about: str, values: Mapping[str, int]) -> Iterable[str]:
    return _metric("counter", name, about, values)


def _metric(kind: str, name: str, about: str, values: Mapping[str, int]) -> Iterable[str]:
    yield from _head(kind, name, about)
    for labels, value in values.items():
        yield f"{name}{labels} {value}"


def _head(kind: str, name: str, about: str) -> Iterable[str]:
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} {kind}"


def _labelled(label: str, values: Mapping[str, int]) -> dict[str, int]:
    return {f'{{{label}="{value.lower()}"}}': count for value, count in values.items()}
