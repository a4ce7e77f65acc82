"""Forgets what ended long ago, a little at a time, so that a database file stops growing.

Started by `server`; each batch is one short transaction, between which the engine does its work.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from dataclasses import dataclass, field

from flowctl.engine import flow_statements
from flowctl.engine import statements as sql
from flowctl.engine.flow_control import DAY_MS
from flowctl.engine.protocol import first_ulid
from flowctl.engine.store import Store
from flowctl.engine.timing import Clock, SystemClock

BATCH = 100
PAUSE_SECONDS = 0.02
ROUND_SECONDS = 60.0

log = logging.getLogger("flowctl.engine")


@dataclass(frozen=True, slots=True)
class Retention:
    """Keeps ended runs, and events, for a number of days; None keeps them for ever.

    Events are kept for a day at least: their ids are what duplicates are known by.
    """

    store: Store
    days: float | None
    clock: Clock = field(default_factory=SystemClock)

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            try:
                is_done = self.forget(now=self.clock.now()) == 0
            except sqlite3.Error as err:
                log.error("What ended long ago could not be forgotten: %s", err)  # noqa: TRY400 - it tells all
                is_done = True
            await asyncio.sleep(ROUND_SECONDS if is_done else PAUSE_SECONDS)

    def forget(self, *, now: int) -> int:
        """One batch; answers how many runs, events and meters are gone."""
        with self.store.transaction():
            meters = self.store.db.execute(flow_statements.FORGET_METERS, (now, BATCH)).rowcount
            return meters if self.days is None else meters + self._forget_older(now, self.days)

    def _forget_older(self, now: int, days: float) -> int:
        db, before = self.store.db, now - round(days * DAY_MS)
        runs = db.execute(sql.FORGET_RUNS, (before, BATCH)).fetchall()
        db.executemany(sql.FORGET_STEPS, runs)
        db.executemany(sql.FORGET_METADATA, runs)
        oldest_event = first_ulid(min(before, now - DAY_MS))
        return len(runs) + db.execute(sql.FORGET_EVENTS, (oldest_event, BATCH)).rowcount
