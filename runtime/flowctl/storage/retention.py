"""Forgetting runs: one by its id, or those that ended long ago. Called by `storage.sql`, in transactions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flowctl.storage import statements as sql

if TYPE_CHECKING:
    from flowctl.storage.database import Database


_REST = (sql.DELETE_BASES, sql.DELETE_RECORDS, sql.DELETE_EVENTS, sql.DELETE_DISPATCHES, sql.DELETE_TURNS)


def delete(db: Database, workflow_id: str, run_id: str) -> bool:
    """Forget a run; whether there was one."""
    is_known = db.execute(sql.DELETE_RUN, (workflow_id, run_id)).rowcount > 0
    _forget_rest(db, [(workflow_id, run_id)])
    return is_known


def prune(db: Database, *, before: int, limit: int) -> int:
    """Forget up to `limit` runs that ended before a time (epoch ms), oldest first; how many it were."""
    ended = [tuple(row) for row in db.execute(sql.PRUNE_RUNS, (before, before, limit)).fetchall()]
    _forget_rest(db, ended)
    return len(ended)


def _forget_rest(db: Database, runs: Sequence[tuple[str, ...]]) -> None:
    """Delete what belongs to runs whose own rows are gone: whoever writes to one waits for those rows."""
    for statement in _REST:
        if runs:
            db.executemany(statement, runs)
