"""A run as `storage.memory` keeps it: what it is given as it is, and copies for whoever reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from flowctl.events import WorkflowEvent
from flowctl.snapshot import ACTIVE, RunStatus, Snapshot, StepResult
from flowctl.storage.base import Inside, Lease, RecordWrite, RunFilters
from flowctl.storage.lists import millis
from flowctl.storage.rows import Row, base_of, body_of, dump, header_of, stored_run
from flowctl.stored_run import StoredRun


@dataclass(slots=True)
class Entry:
    """A record (None: forgotten), the leg and operation that wrote it, and what it was before that leg."""

    record: StepResult | None
    leg: int
    op: str | None = None
    memo: Mapping[str, Any] | None = None
    earlier: StepResult | None = None
    late: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    execution: str = ""

    def forget(self, leg: int) -> None:
        """Leave no record; the first time in a leg, what was there is kept."""
        self._put(None, leg)

    def rewrite(self, write: RecordWrite, leg: int) -> None:
        """Put another record in its place, as `forget` does."""
        self._put(write.record, leg)
        self.op, self.memo, self.late = write.op, write.memo, write.late

    def keep_inside(self, given: Inside, leg: int) -> None:
        """Put what a nested workflow has changed, which leaves the record as it is."""
        self._put(self.record, leg)
        self.op, self.memo = given.op, given.memo

    def _put(self, record: StepResult | None, leg: int) -> None:
        if self.leg < leg:
            self.earlier = self.record
        self.record, self.leg, self.op, self.memo, self.late = record, leg, None, None, {}


@dataclass(slots=True)
class KeptRun:
    """All that is stored of a run; `base` is as its newest leg began, `header` what commits change.

    While another state than this one is shown, that is `shown`; one that `is_hidden` was never shown.
    """

    key: tuple[str, str]
    resource_id: str | None
    created_at: int
    updated_at: int
    base: Snapshot
    header: Snapshot
    status: RunStatus
    is_hidden: bool = False
    shown: StoredRun | None = None
    leg: int = 0
    engine: str | None = None
    lease: Lease | None = None
    execution: str = ""
    entries: dict[str, Entry] = field(default_factory=dict[str, Entry])
    events: list[tuple[int, WorkflowEvent]] = field(default_factory=list[tuple[int, WorkflowEvent]])
    event_keys: set[str] = field(default_factory=set[str])

    @property
    def shown_status(self) -> RunStatus:
        """The status of what is shown."""
        return self.status if self.shown is None else self.shown.status

    @property
    def is_active(self) -> bool:
        """Whether somebody is to execute it."""
        return self.status in ACTIVE

    def holder(self, now: int) -> str | None:
        """Who holds its lease at a time (epoch ms)."""
        return self.lease.owner if self.lease is not None and self.lease.until > now else None

    def read(self) -> StoredRun:
        """A copy of the run as it stands."""
        return stored_run(self._row(self.header), [(key, _body(e.record)) for key, e in self.entries.items()])

    def read_earlier(self) -> StoredRun:
        """A copy of the run with the header and the records that its newest leg began with."""
        then = ((key, e.record if e.leg < self.leg else e.earlier) for key, e in self.entries.items())
        return stored_run(self._row(self.base), [(key, _body(record)) for key, record in then], whole=False)

    def read_shown(self) -> StoredRun | None:
        """A copy of the run as it is shown."""
        if self.is_hidden:
            return None
        return self.read() if self.shown is None else _as_shown(self.shown)

    def is_meant(self, workflow_id: str | None, filters: RunFilters) -> bool:
        """Whether it is listed."""
        earliest, latest = millis(filters.get("from_date")), millis(filters.get("to_date"))
        wanted = (
            (workflow_id, self.key[0]),
            (filters.get("status"), self.shown_status),
            (filters.get("resource_id"), self.resource_id),
        )
        return (
            not self.is_hidden
            and all(value is None or value == has for value, has in wanted)
            and (earliest is None or earliest <= self.created_at)
            and (latest is None or self.created_at <= latest)
        )

    def settle_shown(self, *, is_shown: bool) -> None:
        """Before a write: show the run as it will stand, or go on showing what is shown now."""
        if is_shown:
            self.is_hidden, self.shown = False, None
        elif not self.is_hidden and self.shown is None:
            self.shown = _as_shown(self.read())

    def write(self, writes: Mapping[str, RecordWrite | None], leg: int) -> None:
        """Put records, after forgetting those below the keys that have none."""
        for below in (key for key, write in writes.items() if write is None):
            for entry in (entry for key, entry in self.entries.items() if key.startswith(below)):
                entry.forget(leg)
        for key, write in writes.items():
            if write is not None:
                self.entries.setdefault(key, Entry(None, leg)).rewrite(write, leg)

    def replace_records(self, records: Mapping[str, StepResult], leg: int) -> None:
        """Put these instead of all there are."""
        self.entries = {key: Entry(record, leg) for key, record in records.items()}

    def _row(self, header: Snapshot) -> Row:
        known = (*self.key, self.resource_id, self.status, self.created_at, self.updated_at, self.leg)
        return (*known, base_of(self.base), header_of(header))


def _body(record: StepResult | None) -> str | None:
    return None if record is None else body_of(record)


def _as_shown(run: StoredRun) -> StoredRun:
    """A copy of a run as it is shown apart from what it goes on from: without tracebacks."""
    return StoredRun.from_json(orjson.loads(dump(run.to_json())))
