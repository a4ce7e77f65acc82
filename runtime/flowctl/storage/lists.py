"""Lists of runs: filters, pages and totals. Called by `storage.sql`, inside its transactions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from flowctl.errors import Issue, ValidationError
from flowctl.storage import statements as sql

if TYPE_CHECKING:
    from datetime import datetime

    from flowctl.snapshot import RunStatus
    from flowctl.storage.base import RunFilters
    from flowctl.storage.database import Database
    from flowctl.storage.rows import Record, Row


RUNS_AT_ONCE = 500


class Window(NamedTuple):
    """Which of the runs found are wanted: `limit` (None: all) from `offset` on."""

    limit: int | None = None
    offset: int = 0

    @classmethod
    def of_page(cls, *, page: int | None, per_page: int | None) -> Window:
        """A page, if both are given, or all; raises ValidationError for a negative one."""
        issues = [
            Issue(name, f"must be 0 or more, not {given}")
            for name, given in (("page", page), ("per_page", per_page))
            if given is not None and given < 0
        ]
        if issues:
            raise ValidationError("Invalid page of runs", issues)
        return cls() if page is None or per_page is None else cls(per_page, page * per_page)


@dataclass(frozen=True, slots=True)
class Found:
    """Rows of runs with their records, and how many runs there are in all."""

    rows: list[tuple[Row, list[Record]]]
    total: int


def find(db: Database, workflow_id: str | None, filters: RunFilters, window: Window) -> Found:
    """Runs as they are shown, newest first."""
    where, values = _condition(workflow_id, filters)
    limit = sql.ALL if window.limit is None else window.limit
    rows = db.execute(sql.LIST_RUNS.format(where=where), (*values, limit, window.offset)).fetchall()
    records = _records_of(db, [(row[0], row[1]) for row in rows])
    total = _known_total(window, len(rows))
    if total is None:
        total = db.execute(sql.COUNT_RUNS.format(where=where), values).fetchone()[0]
    return Found([(row, records[row[0], row[1]]) for row in rows], total)


def count(
    db: Database, workflow_ids: Sequence[str], statuses: Sequence[RunStatus]
) -> dict[tuple[str, RunStatus], int]:
    """How many runs of each of these workflows have each of these statuses; zeros are left out."""
    marks = [",".join("?" * len(values)) for values in (workflow_ids, statuses)]
    statement = sql.COUNT_BY_STATUS.format(workflows=marks[0], statuses=marks[1])
    rows = db.execute(statement, (*workflow_ids, *statuses)).fetchall()
    return {(workflow_id, status): number for workflow_id, status, number in rows}


def _condition(workflow_id: str | None, filters: RunFilters) -> tuple[str, tuple[Any, ...]]:
    wanted = {
        "workflow_id = ?": workflow_id,
        "shown_status = ?": filters.get("status"),
        "resource_id = ?": filters.get("resource_id"),
        "created_at >= ?": millis(filters.get("from_date")),
        "created_at <= ?": millis(filters.get("to_date")),
    }
    terms = {term: value for term, value in wanted.items() if value is not None}
    return " AND ".join(terms) or "1 = 1", tuple(terms.values())


def _known_total(window: Window, found: int) -> int | None:
    """What the last page tells of itself, so that nothing needs to be counted."""
    is_last = window.limit is None or 0 < found < window.limit or not (found or window.offset)
    return window.offset + found if is_last else None


def _records_of(db: Database, runs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], list[Record]]:
    found: dict[tuple[str, str], list[Record]] = {run: [] for run in runs}
    for start in range(0, len(runs), RUNS_AT_ONCE):
        some = runs[start : start + RUNS_AT_ONCE]
        statement = sql.RECORDS_OF_RUNS.format(marks=",".join(["(?, ?)"] * len(some)))
        rows = db.execute(statement, [id for run in some for id in run]).fetchall()
        for workflow_id, run_id, key, body in rows:
            found[workflow_id, run_id].append((key, body))
    return found


def millis(date: datetime | None) -> int | None:
    """A moment in epoch milliseconds."""
    return None if date is None else int(date.timestamp() * 1000)
