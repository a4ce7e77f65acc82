"""What is shown of a run apart from what it goes on from. Called by `storage.sql`, inside its transactions.

A run is shown as it stands, until a write that is not to be shown: what it was before that is kept then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from flowctl.storage import statements as sql
from flowctl.storage.rows import stored_run
from flowctl.stored_run import StoredRun

if TYPE_CHECKING:
    from flowctl.storage.base import Claim, Commit
    from flowctl.storage.database import Database


def shown_as_it_stands(db: Database, run: tuple[str, str]) -> StoredRun | None:
    """The run, if that is what is shown; nobody else changes it until the transaction ends."""
    row = db.execute(sql.LOCK_IF_SHOWN_AS_IT_STANDS, run).fetchone()
    return None if row is None else stored_run(row, db.execute(sql.READ_RECORDS, (*run, sql.ALL)).fetchall())


def settle_shown(
    db: Database, run: tuple[str, str], before: StoredRun | None, write: Claim | Commit, *, is_apart: bool
) -> None:
    """After a write: show the run as it stands, if it was not (`is_apart`), or go on showing what it was."""
    if write.is_shown and is_apart:
        db.execute(sql.SHOW_AS_IT_STANDS, run)
    if before is not None:
        db.execute(sql.KEEP_SHOWN, (orjson.dumps(before.to_json()).decode(), before.status, *run))
