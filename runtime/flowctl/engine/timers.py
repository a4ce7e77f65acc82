"""What comes of a timer whose moment has come: of a run, of one of its steps, or of a function.

Called by `executor`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import orjson

from flowctl.engine import starts
from flowctl.engine import statements as sql
from flowctl.engine.ends import CANCELLED_RUN, FAILED_RUN, made
from flowctl.engine.ledger import TIMEOUT, Ledger
from flowctl.engine.protocol import SCHEDULED, iso
from flowctl.engine.store import Job

OF_FUNCTIONS = frozenset({starts.DEBOUNCE, starts.BATCH, starts.CRON})
"""The kinds of timers that name a function where others name a run."""

log = logging.getLogger("flowctl.engine")


@dataclass(frozen=True, slots=True)
class Timers:
    """Those of a ledger."""

    ledger: Ledger

    def fire(self, job: Job, *, now: int) -> None:
        """Do what a timer is for; one transaction."""
        ledger = self.ledger
        with ledger.store.transaction():
            ledger.store.db.execute(sql.DELETE_JOB, (job.id,))
            match job.kind:
                case starts.DEBOUNCE | starts.BATCH:
                    ledger.starts.flush(ledger.functions.get(job.run_id), job, now=now)
                case starts.START_TIMEOUT | starts.FINISH_TIMEOUT:
                    self._end(job, CANCELLED_RUN, {}, now)
                case starts.ABANDONED:
                    message = "The endpoint began a run and reported neither its end nor a step to wait for."
                    self._end(job, FAILED_RUN, {"name": "Error", "message": message}, now)
                case starts.CRON:
                    self._tick(job, now)
                case _:
                    self._end_step(job, now)
        ledger.wake()

    def give_up(self, job: Job, *, now: int) -> None:
        """Let go of a timer of a function that the engine cannot do, and say what is lost; one transaction.

        A schedule goes on with its next time.
        """
        ledger = self.ledger
        with ledger.store.transaction():
            ledger.store.db.execute(sql.DELETE_JOB, (job.id,))
            lost = ledger.starts.drop_held(job)
            if job.kind == starts.CRON and (function := ledger.functions.get(job.run_id)) is not None:
                ledger.starts.schedule_next(function, job.target, now=now)
        what = f"the schedule {job.target!r} at {iso(now)}" if job.kind == starts.CRON else ", ".join(lost)
        log.error("The function %s is not started for what it was due for: %s.", job.run_id, what)
        ledger.wake()

    def _end(self, job: Job, status: str, output: Any, now: int) -> None:
        run = self.ledger.store.run(job.run_id)
        if run is not None:
            self.ledger.end(run, status, output, now)

    def _tick(self, job: Job, now: int) -> None:
        function = self.ledger.functions.get(job.run_id)
        if function is None:
            return
        ledger = self.ledger
        ledger.starts.schedule_next(function, job.target, now=now)
        fires_at, scheduled_at = job.due + ledger.starts.delay(function, job.target), iso(job.due, "seconds")
        data = {"cron": job.target, "fireAt": iso(fires_at, "seconds"), "scheduledAt": scheduled_at}
        event = made(SCHEDULED, data, now, id=scheduled_at, ts=fires_at)
        ledger.store.put_event(event)
        ledger.starts.begin(function, [event.to_json()], event.internal_id, now)

    def _end_step(self, job: Job, now: int) -> None:
        """A sleep is over, or a wait has come to nothing."""
        body: Any = None
        if job.kind == TIMEOUT and job.target.startswith("invoke:"):
            message = "Timed out waiting for invoked function to complete"
            name = "InngestInvokeTimeoutError"
            body = {"error": {"error": f"{name}: {message}", "message": message, "name": name}}
        self.ledger.end_step(job.run_id, job.target.removeprefix("invoke:"), orjson.dumps(body), now)
