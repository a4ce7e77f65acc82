"""A function with rules on a clock of its own: events go in at moments, starts come out."""

from __future__ import annotations

from typing import Any, NamedTuple

from flowctl.engine.gates import Gates
from flowctl.engine.ledger import Ledger
from flowctl.engine.protocol import Function, parse_event
from flowctl.engine.starts import CALL
from flowctl.engine.statements import RELEASE_JOBS
from flowctl.engine.store import Job, RunRow, Store
from flowctl.engine.timers import Timers
from flowctl.engine.turn import Finish


class Start(NamedTuple):
    """A first request that is due: when, and the `i` of its events."""

    at: int
    events: list[int]


class Simulation:
    """The engine's ledger on a database in memory; nobody carries the requests out."""

    def __init__(self, **config: Any) -> None:
        self.store = Store(None)
        self.ledger = Ledger(self.store, lambda: None)
        self.ledger.functions["f"] = Function(
            "f", "f", "f", "app", "", {"triggers": [{"event": "e"}], **config}
        )
        self.gates = Gates(self.store)
        self.starts: list[Start] = []
        self.up_since = 0

    def send(self, at: int, *, ts: int = 0, **data: Any) -> list[RunRow]:
        """Take an event in, once the timers before it have fired; answers the runs that it began."""
        self.pass_to(at)
        return self.take_in(at, ts=ts, **data)

    def take_in(self, at: int, *, ts: int = 0, **data: Any) -> list[RunRow]:
        """Take an event in while nothing else happens."""
        event = parse_event({"name": "e", "data": data, "ts": ts}, now=at)
        self.ledger.take_in([event])
        return self.store.runs_of_event(event.internal_id)

    def pass_to(self, at: int) -> None:
        """Let time pass: each timer fires at its moment, each request that is let in is noted."""
        while (due := self.next_moment()) is not None and due <= at:
            now = max(due, self.up_since)
            self.gates.throttles.unpark(now=now)
            self.gates.unpark(now=now, idle=True)
            self.work(now)

    def was_out_until(self, at: int) -> None:
        """Have nothing happen until a moment, when a new process begins."""
        self.store.db.execute(RELEASE_JOBS)
        self.gates, self.up_since = Gates(self.store), at
        self.pass_to(at)

    def next_moment(self) -> int | None:
        """When something happens by itself."""
        moments = (self.store.next_due(), self.gates.throttles.next_opening)
        return min((at for at in moments if at is not None), default=None)

    def work(self, now: int, most: int = 100) -> None:
        """Take jobs that are due; requests end at once."""
        for job in self.store.take_due(now, most):
            if job.kind != CALL:
                Timers(self.ledger).fire(job, now=now)
            elif self.gates.enter(job, now=now):
                self.starts.append(Start(now, self.events_of(job)))
                self.gates.leave(job)
                self.ledger.drop(job)

    def take_all(self, at: int, room: int) -> list[int]:
        """The `i` of the runs whose first requests are due at a moment, as so many at once take them."""
        taken: list[int] = []
        while jobs := self.store.take_due(at, room):
            taken += [self.events_of(job)[0] for job in jobs]
        return taken

    def finish(self, run: RunRow, *, now: int) -> None:
        """End a run."""
        with self.store.transaction():
            self.ledger.carry_out(run, Finish(failed=False, output=None), now)

    def is_open(self, run: RunRow) -> bool:
        return self.store.is_open(run.run_id)

    def events_of(self, job: Job) -> list[int]:
        """The `i` of the events that began a job's run."""
        run = self.store.run(job.run_id)
        assert run is not None
        return [event["data"]["i"] for event in run.events]
