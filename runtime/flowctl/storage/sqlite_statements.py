"""The SQL of `storage.sqlite`, by name, and its numbered migrations (never edited, only added to)."""

from __future__ import annotations

import sqlite3

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE runs (
        workflow_id TEXT NOT NULL, run_id TEXT NOT NULL, resource_id TEXT, status TEXT NOT NULL,
        created_at INTEGER NOT NULL, updated_at INTEGER NOT NULL, header BLOB NOT NULL,
        leg INTEGER NOT NULL DEFAULT 0, engine TEXT, lease_owner TEXT, lease_until INTEGER,
        PRIMARY KEY (workflow_id, run_id)
    );
    CREATE INDEX runs_by_creation ON runs (workflow_id, created_at DESC);
    CREATE INDEX runs_active ON runs (status) WHERE status IN ('running', 'waiting');
    CREATE TABLE records (
        workflow_id TEXT NOT NULL, run_id TEXT NOT NULL, key TEXT NOT NULL,
        body BLOB NOT NULL, leg INTEGER NOT NULL, op TEXT, memo BLOB,
        UNIQUE (workflow_id, run_id, key)
    );
    CREATE TABLE events (
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        workflow_id TEXT NOT NULL, run_id TEXT NOT NULL, key TEXT NOT NULL, body BLOB NOT NULL,
        UNIQUE (workflow_id, run_id, key)
    );
    CREATE INDEX events_by_run ON events (workflow_id, run_id, seq);
    CREATE TABLE outbox (
        workflow_id TEXT NOT NULL, run_id TEXT NOT NULL, leg INTEGER NOT NULL, body BLOB NOT NULL,
        PRIMARY KEY (workflow_id, run_id)
    );
    """,
)

INSERT_RUN = """
    INSERT INTO runs (workflow_id, run_id, resource_id, status, created_at, updated_at, header)
    VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
"""
CLAIM_RUN = """
    UPDATE runs SET status = 'running', updated_at = ?, header = ?, leg = leg + 1,
        engine = ?, lease_owner = ?, lease_until = ?
    WHERE workflow_id = ? AND run_id = ? AND status IN ({marks}) RETURNING leg
"""
UPDATE_RUN = """
    UPDATE runs SET status = ?, updated_at = ?, header = ?
    WHERE workflow_id = ? AND run_id = ? AND leg = ? AND status IN ('running', 'waiting')
"""
REPLACE_HEADER = "UPDATE runs SET status = ?, updated_at = ?, header = ? WHERE workflow_id = ? AND run_id = ?"
CANCEL_RUN = """
    UPDATE runs SET status = 'canceled', updated_at = ?
    WHERE workflow_id = ? AND run_id = ? AND status NOT IN ('success', 'failed', 'canceled')
"""
READ_RUN = """
    SELECT workflow_id, run_id, resource_id, status, created_at, updated_at, leg, header FROM runs
    WHERE workflow_id = ? AND run_id = ?
"""
LIST_RUNS = """
    SELECT workflow_id, run_id, resource_id, status, created_at, updated_at, leg, header FROM runs
    WHERE {where} ORDER BY created_at DESC, rowid DESC LIMIT ? OFFSET ?
"""
COUNT_RUNS = "SELECT count(*) FROM runs WHERE {where}"
DELETE_RUN = "DELETE FROM runs WHERE workflow_id = ? AND run_id = ?"
PUT_RECORD = """
    INSERT INTO records (workflow_id, run_id, key, body, leg, op, memo) VALUES (?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (workflow_id, run_id, key)
    DO UPDATE SET body = excluded.body, leg = excluded.leg, op = excluded.op, memo = excluded.memo
"""
READ_RECORDS = "SELECT key, body FROM records WHERE workflow_id = ? AND run_id = ? ORDER BY rowid"
DELETE_RECORDS = "DELETE FROM records WHERE workflow_id = ? AND run_id = ?"
FINISHED_MEMO = """
    SELECT memo FROM records WHERE workflow_id = ? AND run_id = ? AND leg = ? AND op = ? AND memo IS NOT NULL
"""
PUT_EVENT = "INSERT INTO events (workflow_id, run_id, key, body) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
READ_EVENTS = "SELECT seq, body FROM events WHERE workflow_id = ? AND run_id = ? AND seq > ? ORDER BY seq"
DELETE_EVENTS = "DELETE FROM events WHERE workflow_id = ? AND run_id = ?"
PUT_DISPATCH = """
    INSERT INTO outbox (workflow_id, run_id, leg, body) VALUES (?, ?, ?, ?)
    ON CONFLICT (workflow_id, run_id) DO UPDATE SET leg = excluded.leg, body = excluded.body
"""
READ_DISPATCHES = "SELECT workflow_id, run_id, leg, body FROM outbox ORDER BY rowid"
DELETE_DISPATCH = "DELETE FROM outbox WHERE workflow_id = ? AND run_id = ? AND leg = ?"
DELETE_DISPATCHES = "DELETE FROM outbox WHERE workflow_id = ? AND run_id = ?"
RENEW_LEASES = "UPDATE runs SET lease_until = ? WHERE lease_owner = ? AND status IN ('running', 'waiting')"
ACTIVE_LOCAL_RUNS = """
    SELECT workflow_id, run_id, lease_owner, lease_until FROM runs
    WHERE status IN ('running', 'waiting') AND engine = 'local'
"""


def migrate(db: sqlite3.Connection) -> None:
    """Bring the tables to the newest version, one transaction a version."""
    while (version := db.execute("PRAGMA user_version").fetchone()[0]) < len(MIGRATIONS):
        db.execute("BEGIN IMMEDIATE")
        try:
            if db.execute("PRAGMA user_version").fetchone()[0] == version:
                for statement in MIGRATIONS[version].split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {version + 1}")
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            raise
