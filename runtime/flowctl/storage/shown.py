"""What is shown of a run apart from what it goes on from. Called by `storage.sql`, inside its transactions.

A run is shown as it stands, until a write that is not to be shown: what it was before that is kept then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from flowctl.snapshot import RunStatus, StoredRun
from flowctl.storage import statements as sql
from flowctl.storage.rows import stored_run

if TYPE_CHECKING:
    from flowctl.storage.sql import Database


def showing(status: RunStatus, *, is_shown: bool) -> tuple[str, tuple[str, ...]]:
    """What a write sets beside the run itself, and its values: that it is shown as it stands, or nothing."""
    return (sql.SHOW_AS_IT_STANDS, (status,)) if is_shown else ("", ())


def shown_as_it_stands(db: Database, run: tuple[str, str]) -> StoredRun | None:
    """The run, if that is what is shown; nobody else changes it until the transaction ends."""
    row = db.execute(sql.LOCK_IF_SHOWN_AS_IT_STANDS, run).fetchone()
    return None if row is None else stored_run(row, db.execute(sql.READ_RECORDS, run).fetchall())


def keep_shown(db: Database, before: StoredRun | None) -> None:
    """Go on showing a run as it was before this transaction."""
    if before is not None:
        kept = (orjson.dumps(before.to_json()).decode(), before.status)
        db.execute(sql.KEEP_SHOWN, (*kept, before.workflow_id, before.run_id))
