"""The SQL of `storage.sql`, by name, and the numbered migrations (never edited, only added to).

SQLite and PostgreSQL share every statement; `{words}` of migrations are the few that they spell differently.
"""

from __future__ import annotations

from flowctl.errors import StorageError

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE runs (
        {rowid} workflow_id TEXT NOT NULL, run_id TEXT NOT NULL, resource_id TEXT, status TEXT NOT NULL,
        created_at {int} NOT NULL, updated_at {int} NOT NULL, header {json} NOT NULL,
        leg {int} NOT NULL DEFAULT 0, engine TEXT, lease_owner TEXT, lease_until {int},
        PRIMARY KEY (workflow_id, run_id)
    );
    CREATE INDEX runs_by_creation ON runs (workflow_id, created_at DESC);
    CREATE INDEX runs_active ON runs (status) WHERE status IN ('running', 'waiting');
    CREATE TABLE records (
        {rowid} workflow_id TEXT NOT NULL, run_id TEXT NOT NULL, key TEXT NOT NULL,
        body {json} NOT NULL, leg {int} NOT NULL, op TEXT, memo {json},
        UNIQUE (workflow_id, run_id, key)
    );
    CREATE TABLE events (
        seq {sequence},
        workflow_id TEXT NOT NULL, run_id TEXT NOT NULL, key TEXT NOT NULL, body {json} NOT NULL,
        UNIQUE (workflow_id, run_id, key)
    );
    CREATE INDEX events_by_run ON events (workflow_id, run_id, seq);
    CREATE TABLE outbox (
        {rowid} workflow_id TEXT NOT NULL, run_id TEXT NOT NULL, leg {int} NOT NULL, body {json} NOT NULL,
        PRIMARY KEY (workflow_id, run_id)
    );
    """,
    """
    ALTER TABLE runs ADD COLUMN base {json};
    CREATE INDEX runs_ended ON runs (updated_at) WHERE status IN ('success', 'failed', 'canceled');
    """,
    """
    ALTER TABLE records ADD COLUMN earlier {json};
    """,
    """
    DROP INDEX runs_by_creation;
    CREATE INDEX runs_by_creation ON runs (workflow_id, created_at{order});
    CREATE INDEX runs_by_status ON runs (workflow_id, status, created_at{order});
    CREATE INDEX runs_by_resource ON runs (workflow_id, resource_id, created_at{order})
        WHERE resource_id IS NOT NULL;
    """,
    """
    ALTER TABLE runs ADD COLUMN hidden {int} NOT NULL DEFAULT 0;
    ALTER TABLE runs ADD COLUMN shown {json};
    ALTER TABLE runs ADD COLUMN shown_status TEXT;
    UPDATE runs SET shown_status = status;
    DROP INDEX runs_by_creation;
    DROP INDEX runs_by_status;
    DROP INDEX runs_by_resource;
    CREATE INDEX runs_by_creation ON runs (workflow_id, hidden, created_at{order});
    CREATE INDEX runs_by_status ON runs (workflow_id, hidden, shown_status, created_at{order});
    CREATE INDEX runs_by_resource ON runs (workflow_id, hidden, resource_id, created_at{order})
        WHERE resource_id IS NOT NULL;
    """,
    """
    CREATE TABLE turns (
        workflow_id TEXT NOT NULL, run_id TEXT NOT NULL, engine_run TEXT NOT NULL,
        request TEXT, since {int} NOT NULL, passed {int} NOT NULL,
        PRIMARY KEY (workflow_id, run_id, engine_run)
    );
    """,
    """
    CREATE TABLE bases (
        workflow_id TEXT NOT NULL, run_id TEXT NOT NULL, body {json} NOT NULL,
        PRIMARY KEY (workflow_id, run_id)
    );
    INSERT INTO bases SELECT workflow_id, run_id, base FROM runs WHERE base IS NOT NULL;
    ALTER TABLE runs DROP COLUMN base;
    """,
    "ALTER TABLE records ADD COLUMN late {json}",
    "ALTER TABLE bases ADD COLUMN header {json}",
    """
    ALTER TABLE runs ADD COLUMN execution TEXT NOT NULL DEFAULT '';
    ALTER TABLE records ADD COLUMN execution TEXT NOT NULL DEFAULT '';
    """,
)
# what stays as it is during a leg has rows of its own: SQLite writes a row anew as a whole, a large input too
_BASES = "FROM bases WHERE bases.workflow_id = runs.workflow_id AND bases.run_id = runs.run_id"
_BASE = f"(SELECT body {_BASES})"

ALL = 2**62  # rows, where a statement has a limit

INSERT_RUN = """
    INSERT INTO runs
    (workflow_id, run_id, resource_id, status, shown_status, created_at, updated_at, header, hidden)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
"""
PUT_BASE = """
    INSERT INTO bases (workflow_id, run_id, body, header) VALUES (?, ?, ?, ?)
    ON CONFLICT (workflow_id, run_id) DO UPDATE SET body = excluded.body, header = excluded.header
"""
CLAIM_RUN = """
    UPDATE runs SET status = ?, updated_at = ?, header = ?, leg = leg + 1,
        engine = ?, lease_owner = ?, lease_until = ?, shown_status = COALESCE(?, shown_status)
    WHERE workflow_id = ? AND run_id = ? AND status IN ({marks}) AND leg = COALESCE(?, leg)
        AND execution = COALESCE(?, execution)
    RETURNING hidden = 1 OR shown IS NOT NULL, leg
"""
UPDATE_HEADER = """
    UPDATE runs SET updated_at = ?, header = ?
    WHERE workflow_id = ? AND run_id = ? AND leg = ? AND status = ? AND shown_status = ?
        AND hidden = 0 AND shown IS NULL AND execution = COALESCE(?, execution)
"""
UPDATE_RUN = """
    UPDATE runs SET status = ?, updated_at = ?, header = ?, shown_status = COALESCE(?, shown_status)
    WHERE workflow_id = ? AND run_id = ? AND leg = ? AND status IN ('running', 'waiting')
        AND execution = COALESCE(?, execution)
    RETURNING hidden = 1 OR shown IS NOT NULL
"""
REPLACE_HEADER = """
    UPDATE runs SET status = ?, updated_at = ?, header = ?,
        hidden = 0, shown = NULL, shown_status = ?
    WHERE workflow_id = ? AND run_id = ?
"""
TOUCH_RUN = """
    UPDATE runs SET status = ?, updated_at = ?, shown_status = COALESCE(?, shown_status)
    WHERE workflow_id = ? AND run_id = ? AND leg = ? AND status IN ('running', 'waiting')
    RETURNING hidden = 1 OR shown IS NOT NULL
"""
CANCEL_RUN = """
    UPDATE runs SET status = 'canceled', updated_at = ?, shown = NULL, shown_status = 'canceled'
    WHERE workflow_id = ? AND run_id = ? AND status NOT IN ('success', 'failed', 'canceled')
"""
READ_RUN = f"""
    SELECT workflow_id, run_id, resource_id, status, created_at, updated_at, leg, {_BASE}, header FROM runs
    WHERE workflow_id = ? AND run_id = ?
"""  # noqa: S608 - _BASE is a constant
READ_EARLIER_RUN = f"""
    SELECT workflow_id, run_id, resource_id, status, created_at, updated_at, leg, {_BASE},
        COALESCE((SELECT bases.header {_BASES}), header) FROM runs
    WHERE workflow_id = ? AND run_id = ?
"""  # noqa: S608 - _BASE and _BASES are constants
LOCK_IF_SHOWN_AS_IT_STANDS = f"""
    UPDATE runs SET status = status
    WHERE workflow_id = ? AND run_id = ? AND hidden = 0 AND shown IS NULL
    RETURNING workflow_id, run_id, resource_id, status, created_at, updated_at, leg, {_BASE}, header
"""  # noqa: S608 - _BASE is a constant
SHOW_AS_IT_STANDS = "UPDATE runs SET hidden = 0, shown = NULL WHERE workflow_id = ? AND run_id = ?"
KEEP_SHOWN = "UPDATE runs SET shown = ?, shown_status = ? WHERE workflow_id = ? AND run_id = ?"
READ_SHOWN = "SELECT shown FROM runs WHERE workflow_id = ? AND run_id = ? AND hidden = 0"
READ_STATUS = "SELECT status, leg FROM runs WHERE workflow_id = ? AND run_id = ?"
LIST_RUNS = f"""
    SELECT workflow_id, run_id, resource_id, status, created_at, updated_at, leg, {_BASE}, header, shown
    FROM runs WHERE hidden = 0 AND {{where}} ORDER BY created_at DESC, rowid DESC LIMIT ? OFFSET ?
"""  # noqa: S608 - _BASE is a constant
COUNT_RUNS = "SELECT count(*) FROM runs WHERE hidden = 0 AND {where}"
COUNT_BY_STATUS = """
    SELECT workflow_id, shown_status, count(*) FROM runs
    WHERE workflow_id IN ({workflows}) AND hidden = 0 AND shown_status IN ({statuses})
    GROUP BY workflow_id, shown_status
"""
RECORDS_OF_RUNS = """
    SELECT records.workflow_id, records.run_id, key, body FROM (VALUES {marks}) AS page
    JOIN records ON records.workflow_id = column1 AND records.run_id = column2
    ORDER BY records.rowid
"""
DELETE_BASES = "DELETE FROM bases WHERE workflow_id = ? AND run_id = ?"
DELETE_RUN = "DELETE FROM runs WHERE workflow_id = ? AND run_id = ?"
PRUNE_RUNS = """
    DELETE FROM runs WHERE status IN ('success', 'failed', 'canceled') AND updated_at < ?
    AND (workflow_id, run_id) IN (
        SELECT workflow_id, run_id FROM runs
        WHERE status IN ('success', 'failed', 'canceled') AND updated_at < ? ORDER BY updated_at LIMIT ?
    ) RETURNING workflow_id, run_id
"""
PUT_RECORD = """
    INSERT INTO records (workflow_id, run_id, key, body, leg, op, memo, late) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (workflow_id, run_id, key)
    DO UPDATE SET
        body = excluded.body, leg = excluded.leg,
        op = excluded.op, memo = excluded.memo, late = excluded.late,
        earlier = CASE WHEN records.leg < excluded.leg THEN records.body ELSE records.earlier END
"""
READ_RECORDS = """
    SELECT key, body FROM records WHERE workflow_id = ? AND run_id = ? ORDER BY rowid LIMIT ?
"""
READ_EARLIER_RECORDS = """
    SELECT key, CASE WHEN leg < ? THEN body ELSE earlier END FROM records
    WHERE workflow_id = ? AND run_id = ? ORDER BY rowid
"""
DELETE_RECORDS = "DELETE FROM records WHERE workflow_id = ? AND run_id = ?"
FORGET_RECORDS_BELOW = """
    UPDATE records SET earlier = CASE WHEN leg < ? THEN body ELSE earlier END,
        body = 'null', leg = ?, op = NULL, memo = NULL, late = NULL
    WHERE workflow_id = ? AND run_id = ? AND substr(key, 1, ?) = ?
"""
FINISHED_MEMO = """
    SELECT CASE WHEN op = ? THEN memo END, late FROM records
    WHERE workflow_id = ? AND run_id = ? AND key = ? AND leg BETWEEN ? AND ?
"""
PUT_INSIDE = """
    UPDATE records SET earlier = CASE WHEN leg < ? THEN body ELSE earlier END, leg = ?,
        op = ?, memo = ?, late = NULL
    WHERE workflow_id = ? AND run_id = ? AND key = ? AND execution = COALESCE(?, execution)
"""
TAKE_UP_RUN = "UPDATE runs SET execution = ? WHERE workflow_id = ? AND run_id = ? AND leg = ?"
TAKE_UP_PART = """
    UPDATE records SET execution = ? WHERE workflow_id = ? AND run_id = ? AND key = ? AND EXISTS (
        SELECT 1 FROM runs WHERE workflow_id = records.workflow_id AND run_id = records.run_id AND leg = ?
    )
"""
PUT_EVENT = "INSERT INTO events (workflow_id, run_id, key, body) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
READ_EVENTS = """
    SELECT seq, body FROM events WHERE workflow_id = ? AND run_id = ? AND seq > ? ORDER BY seq LIMIT ?
"""
DELETE_EVENTS = "DELETE FROM events WHERE workflow_id = ? AND run_id = ?"
PUT_DISPATCH = """
    INSERT INTO outbox (workflow_id, run_id, leg, body) VALUES (?, ?, ?, ?)
    ON CONFLICT (workflow_id, run_id) DO UPDATE SET leg = excluded.leg, body = excluded.body
"""
READ_DISPATCHES = "SELECT workflow_id, run_id, leg, body FROM outbox ORDER BY rowid"
DELETE_DISPATCH = "DELETE FROM outbox WHERE workflow_id = ? AND run_id = ? AND leg = ?"
DELETE_DISPATCHES = "DELETE FROM outbox WHERE workflow_id = ? AND run_id = ?"
TAKE_TURN = """
    INSERT INTO turns (workflow_id, run_id, engine_run, request, since, passed) VALUES (?, ?, ?, ?, ?, 0)
    ON CONFLICT (workflow_id, run_id, engine_run) DO UPDATE SET
        since = CASE WHEN turns.request IS NULL THEN excluded.since ELSE turns.since END,
        request = COALESCE(turns.request, excluded.request)
    RETURNING request, since, passed
"""
END_TURN = """
    UPDATE turns SET request = NULL, passed = ?
    WHERE workflow_id = ? AND run_id = ? AND engine_run = ? AND request = ?
"""
DELETE_TURNS = "DELETE FROM turns WHERE workflow_id = ? AND run_id = ?"
RENEW_LEASES = "UPDATE runs SET lease_until = ? WHERE lease_owner = ? AND status IN ('running', 'waiting')"
RELEASE_LEASE = """
    UPDATE runs SET lease_owner = NULL, lease_until = NULL
    WHERE workflow_id = ? AND run_id = ? AND lease_owner = ?
"""
ACTIVE_LOCAL_RUNS = """
    SELECT workflow_id, run_id, lease_owner, lease_until, leg FROM runs
    WHERE status IN ('running', 'waiting') AND engine = 'local'
"""


def check_known(version: int) -> None:
    """Refuse tables that a newer flowctl has made; raises StorageError."""
    if version > len(MIGRATIONS):
        raise StorageError(
            f"The tables were made by a newer flowctl (they have version {version}, this one knows "
            f"{len(MIGRATIONS)}): upgrade flowctl-workflows, or use another database."
        )
