"""The engine's tables and SQL, by name. Migrations are numbered and never edited."""

from __future__ import annotations

import sqlite3

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE apps (
        name TEXT PRIMARY KEY, url TEXT NOT NULL, body BLOB NOT NULL, synced_at INTEGER NOT NULL
    );
    CREATE TABLE events (
        internal_id TEXT PRIMARY KEY, id TEXT NOT NULL, name TEXT NOT NULL, body BLOB NOT NULL,
        received_at INTEGER NOT NULL
    );
    CREATE INDEX events_by_id ON events (id);
    CREATE INDEX events_by_name ON events (name, internal_id);
    CREATE TABLE runs (
        run_id TEXT PRIMARY KEY, slug TEXT NOT NULL, function_id TEXT NOT NULL, event_id TEXT NOT NULL,
        event BLOB NOT NULL, status TEXT NOT NULL, started_at INTEGER NOT NULL, ended_at INTEGER, output BLOB,
        sdk_version INTEGER NOT NULL DEFAULT -1
    );
    CREATE INDEX runs_by_event ON runs (event_id);
    CREATE INDEX runs_open ON runs (slug) WHERE ended_at IS NULL;
    CREATE TABLE steps (
        run_id TEXT NOT NULL, step_id TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (run_id, step_id)
    );
    CREATE TABLE pending (
        run_id TEXT NOT NULL, step_id TEXT NOT NULL, kind TEXT NOT NULL, race INTEGER NOT NULL,
        event TEXT, condition TEXT, detail TEXT, PRIMARY KEY (run_id, step_id)
    ) WITHOUT ROWID;
    CREATE INDEX pending_waits ON pending (event) WHERE event IS NOT NULL;
    CREATE INDEX pending_invokes ON pending (detail) WHERE kind = 'invoke';
    CREATE TABLE jobs (
        id INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT NOT NULL, target TEXT NOT NULL, kind TEXT NOT NULL,
        due INTEGER NOT NULL, attempt INTEGER NOT NULL DEFAULT 0, taken INTEGER NOT NULL DEFAULT 0,
        again INTEGER NOT NULL DEFAULT 0, UNIQUE (run_id, target, kind)
    );
    CREATE INDEX jobs_due ON jobs (due) WHERE taken = 0;
    """,
    """
    ALTER TABLE runs ADD COLUMN events BLOB;
    ALTER TABLE runs ADD COLUMN gates BLOB;
    ALTER TABLE runs ADD COLUMN singleton TEXT;
    CREATE INDEX runs_alone ON runs (slug, singleton) WHERE ended_at IS NULL AND singleton IS NOT NULL;
    ALTER TABLE jobs ADD COLUMN rank INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE jobs ADD COLUMN gate TEXT;
    UPDATE jobs SET rank = due;
    CREATE INDEX jobs_ready ON jobs (rank, id) WHERE taken = 0;
    CREATE INDEX jobs_parked ON jobs (gate, rank, id) WHERE gate IS NOT NULL;
    CREATE TABLE meters (
        name TEXT PRIMARY KEY, at REAL NOT NULL, count INTEGER NOT NULL, until INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE held (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, slug TEXT NOT NULL, key TEXT NOT NULL, since INTEGER NOT NULL,
        event_id TEXT NOT NULL, body BLOB NOT NULL
    );
    CREATE INDEX held_by_key ON held (slug, key);
    """,
    """
    ALTER TABLE steps ADD COLUMN name TEXT NOT NULL DEFAULT '';
    ALTER TABLE steps ADD COLUMN ended_at INTEGER;
    ALTER TABLE pending ADD COLUMN name TEXT NOT NULL DEFAULT '';
    """,
    "CREATE INDEX pending_signals ON pending (detail) WHERE kind = 'signal'",
    """
    ALTER TABLE jobs ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE runs ADD COLUMN url TEXT;
    """,
    """
    CREATE TABLE secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
    INSERT INTO secrets (name, value) VALUES ('run tokens', randomblob(32));
    """,
    """
    CREATE INDEX runs_ended ON runs (ended_at) WHERE ended_at IS NOT NULL;
    CREATE INDEX meters_over ON meters (until);
    """,
    """
    INSERT INTO secrets (name, value) VALUES ('realtime tokens', randomblob(32));
    CREATE TABLE cancellations (id TEXT PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
    """,
    "ALTER TABLE events ADD COLUMN copies INTEGER NOT NULL DEFAULT 1",
    """
    CREATE TABLE places (gate TEXT NOT NULL, run_id TEXT NOT NULL, PRIMARY KEY (gate, run_id)) WITHOUT ROWID;
    CREATE INDEX places_of_run ON places (run_id);
    UPDATE OR REPLACE meters SET at = until, name = 'rate' || substr(name, 12)
        WHERE name LIKE 'idempotency/%';
    CREATE TABLE defers (
        run_id TEXT NOT NULL, step_id TEXT NOT NULL, slug TEXT NOT NULL, body BLOB NOT NULL,
        status TEXT NOT NULL, PRIMARY KEY (run_id, step_id)
    ) WITHOUT ROWID;
    """,
    "ALTER TABLE steps ADD COLUMN attempt INTEGER NOT NULL DEFAULT 0",
    """
    CREATE TABLE metadata (
        run_id TEXT NOT NULL, step_id TEXT NOT NULL, kind TEXT NOT NULL, body BLOB NOT NULL,
        updated_at INTEGER NOT NULL, PRIMARY KEY (run_id, step_id, kind)
    ) WITHOUT ROWID;
    """,
    """
    ALTER TABLE pending ADD COLUMN path TEXT NOT NULL DEFAULT '';
    ALTER TABLE pending ADD COLUMN digest TEXT NOT NULL DEFAULT '';
    DROP INDEX pending_waits;
    CREATE INDEX pending_waits ON pending (event, path, digest) WHERE event IS NOT NULL;
    CREATE TABLE cancels (
        run_id TEXT NOT NULL, event TEXT NOT NULL, condition TEXT, timeout TEXT, path TEXT NOT NULL,
        digest TEXT NOT NULL
    );
    CREATE INDEX cancels_of_run ON cancels (run_id);
    CREATE INDEX cancels_by_event ON cancels (event, path, digest);
    INSERT INTO cancels (run_id, event, condition, timeout, path, digest)
        SELECT run_id, rule.value ->> 'event', rule.value ->> 'if', rule.value ->> 'timeout', '', ''
        FROM apps, json_each(CAST(apps.body AS TEXT), '$.functions') AS function,
            json_each(function.value, '$.cancel') AS rule, runs
        WHERE runs.slug = function.value ->> 'id' AND runs.ended_at IS NULL
            AND rule.value ->> 'event' IS NOT NULL;
    """,
    """
    DROP INDEX runs_open;
    CREATE INDEX runs_open ON runs (slug, status, ended_at) WHERE ended_at IS NULL;
    DROP INDEX jobs_due;
    CREATE INDEX jobs_due ON jobs (due, taken) WHERE taken = 0;
    """,
    "ALTER TABLE runs ADD COLUMN throttle BLOB",
)

READ_SECRET = "SELECT value FROM secrets WHERE name = ?"  # noqa: S105 - SQL


PUT_APP = """
    INSERT INTO apps (name, url, body, synced_at) VALUES (?, ?, ?, ?)
    ON CONFLICT (name) DO UPDATE SET url = excluded.url, body = excluded.body, synced_at = excluded.synced_at
"""
READ_APPS = "SELECT name, body FROM apps ORDER BY name"

PUT_EVENT = "INSERT INTO events (internal_id, id, name, body, received_at) VALUES (?, ?, ?, ?, ?)"
ADD_COPY = "UPDATE events SET copies = copies + 1 WHERE internal_id = ?"
SEEN_EVENT = "SELECT 1 FROM events WHERE id = ? AND received_at > ? AND internal_id <> ? LIMIT 1"
READ_EVENT = "SELECT internal_id, body, received_at FROM events WHERE internal_id = ?"
PUT_RUN = """
    INSERT INTO runs
        (run_id, slug, function_id, event_id, event, status, started_at,
        events, gates, throttle, singleton, url)
    VALUES (?, ?, ?, ?, ?, 'Scheduled', ?, ?, ?, ?, ?, ?)
"""
RUN = """
    SELECT run_id, slug, function_id, event_id, event, status, started_at, ended_at, output, sdk_version,
        events, gates, url
    FROM runs
"""
READ_RUN = RUN + "WHERE run_id = ?"
RUNS_OF_EVENT = RUN + "WHERE event_id = ? ORDER BY run_id"
OPEN_RUNS = RUN + "WHERE slug = ? AND ended_at IS NULL"
SINGLETON_RUNS = RUN + "WHERE slug = ? AND singleton = ? AND ended_at IS NULL"
IS_OPEN = "SELECT 1 FROM runs WHERE run_id = ? AND ended_at IS NULL"
RUN_BEGUN = "UPDATE runs SET status = 'Running' WHERE run_id = ? AND ended_at IS NULL"
PUT_SDK_VERSION = "UPDATE runs SET sdk_version = ?1 WHERE run_id = ?2 AND sdk_version <> ?1"
END_RUN = "UPDATE runs SET status = ?, ended_at = ?, output = ? WHERE run_id = ? AND ended_at IS NULL"

FORGET_RUNS = """
    DELETE FROM runs WHERE run_id IN (
        SELECT run_id FROM runs WHERE ended_at IS NOT NULL AND ended_at < ? ORDER BY ended_at LIMIT ?
    ) RETURNING run_id
"""
FORGET_STEPS = "DELETE FROM steps WHERE run_id = ?"
FORGET_EVENTS = """
    DELETE FROM events WHERE internal_id IN (
        SELECT internal_id FROM events WHERE internal_id < ? ORDER BY internal_id LIMIT ?
    )
"""

PUT_STEP = """
    INSERT INTO steps (run_id, step_id, body, name, ended_at, attempt) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT DO NOTHING
"""
STEP_HISTORY = "SELECT step_id, name, ended_at, body, attempt FROM steps WHERE run_id = ? ORDER BY rowid"
STATE_SIZE = """
    SELECT coalesce(sum(length(body)), 0), coalesce(max(length(body)), 0) FROM steps WHERE run_id = ?
"""
HAS_STEP = "SELECT 1 FROM steps WHERE run_id = ? AND step_id = ?"
STEPS_AFTER = "SELECT rowid, step_id, body FROM steps WHERE run_id = ? AND rowid > ? ORDER BY rowid"
READ_STEPS = "SELECT step_id, body FROM steps WHERE run_id = ? ORDER BY rowid"

PUT_PENDING = """
    INSERT INTO pending (run_id, step_id, kind, race, event, condition, detail, name, path, digest)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT DO NOTHING
"""
TAKE_PENDING = "DELETE FROM pending WHERE run_id = ? AND step_id = ? RETURNING race, name"
HAS_PENDING = "SELECT 1 FROM pending WHERE run_id = ? LIMIT 1"
PENDING_DETAIL = "SELECT detail FROM pending WHERE run_id = ? AND step_id = ?"
PENDING_BYTES = "SELECT length(CAST(detail AS BLOB)) FROM pending WHERE run_id = ? AND step_id = ?"
_PATHS = """
    WITH RECURSIVE paths (path) AS (
        SELECT min(path) FROM {0} WHERE event = ?1
        UNION ALL SELECT (SELECT min(path) FROM {0} WHERE event = ?1 AND path > paths.path)
        FROM paths WHERE path IS NOT NULL
    ) SELECT path FROM paths WHERE path IS NOT NULL
"""
WAITED_PATHS = _PATHS.format("pending")
CANCELLING_PATHS = _PATHS.format("cancels")
WAITS_FOR_EVENT = """
    SELECT run_id, step_id, condition, runs.event FROM pending JOIN runs USING (run_id)
    WHERE pending.event = ? AND path = ? AND digest = ? AND kind = 'event'
"""
PUT_CANCEL = "INSERT INTO cancels (run_id, event, condition, timeout, path, digest) VALUES (?, ?, ?, ?, ?, ?)"
CANCELLED_BY = "SELECT run_id, condition, timeout FROM cancels WHERE event = ? AND path = ? AND digest = ?"
DELETE_CANCELS = "DELETE FROM cancels WHERE run_id = ?"
INVOKED_BY = "SELECT run_id, step_id FROM pending WHERE kind = 'invoke' AND detail = ?"
WAITS_FOR_SIGNAL = """
    SELECT run_id, step_id FROM pending WHERE kind = 'signal' AND detail = ? ORDER BY run_id LIMIT 1
"""
FORGET_SIGNAL = "UPDATE pending SET detail = NULL WHERE run_id = ? AND step_id = ?"
DELETE_PENDING = "DELETE FROM pending WHERE run_id = ?"

READ_METADATA = "SELECT body FROM metadata WHERE run_id = ? AND step_id = ? AND kind = ?"
PUT_METADATA = """
    INSERT INTO metadata (run_id, step_id, kind, body, updated_at) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET body = excluded.body, updated_at = excluded.updated_at
"""
METADATA_OF_RUN = (
    "SELECT step_id, kind, body, updated_at FROM metadata WHERE run_id = ? ORDER BY step_id, kind"
)
FORGET_METADATA = "DELETE FROM metadata WHERE run_id = ?"
PUT_DEFER = """
    INSERT INTO defers (run_id, step_id, slug, body, status) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
"""
ABORT_DEFER = "UPDATE defers SET status = ?, body = x'7b7d' WHERE run_id = ? AND step_id = ? AND status = ?"
COUNT_DEFERS = "SELECT count(*), coalesce(sum(length(body)), 0) FROM defers WHERE run_id = ?"
READ_DEFERS = "SELECT step_id, status = 'waiting' FROM defers WHERE run_id = ?"
TAKE_DEFERS = "DELETE FROM defers WHERE run_id = ? RETURNING slug, body, status"

PUT_JOB = """
    INSERT INTO jobs (run_id, target, kind, due, rank) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (run_id, target, kind) DO UPDATE SET again = max(again, taken = 1)
"""
READY_JOBS = """
    SELECT id, run_id, target, kind, attempt, generation + 1, due FROM jobs INDEXED BY jobs_ready
    WHERE taken = 0 AND rank <= ?1 AND due <= ?1 ORDER BY rank, id LIMIT ?2
"""
UNURGENT_JOBS = """
    SELECT id, run_id, target, kind, attempt, generation + 1, due FROM jobs INDEXED BY jobs_due
    WHERE taken = 0 AND due <= ?1 ORDER BY rank, id LIMIT ?2
"""
TAKE_JOB = "UPDATE jobs SET taken = 1, generation = generation + 1 WHERE id = ?"
NEXT_DUE = "SELECT min(due) FROM jobs WHERE taken = 0"
NEXT_CERTAIN = """
    SELECT min(due) FROM jobs WHERE taken = 0
        AND kind NOT IN ('timeout', 'start-timeout', 'finish-timeout', 'abandoned', 'cron')
"""
PUT_RETRY = """
    INSERT INTO jobs (run_id, target, kind, due, rank, attempt) VALUES (?1, ?2, ?3, ?4, ?4, ?5)
    ON CONFLICT (run_id, target, kind) DO NOTHING
"""
REPEAT_JOB = (
    "UPDATE jobs SET taken = 0, again = 0, attempt = 0, due = ?1, rank = ?1 WHERE id = ?2 AND again = 1"
)
RETAKE_JOB = """
    UPDATE jobs SET again = 0, attempt = 0, due = ?1, rank = ?1, generation = generation + 1
    WHERE id = ?2 AND again = 1 RETURNING generation
"""
DELETE_JOB = "DELETE FROM jobs WHERE id = ?"
DELETE_STEP_TIMERS = "DELETE FROM jobs WHERE run_id = ? AND target IN (?, ?) AND kind <> 'call'"
DELETE_TIMERS_OF_RUN = "DELETE FROM jobs WHERE run_id = ? AND kind = ?"
DELETE_RUN_JOBS = "DELETE FROM jobs WHERE run_id = ?"
RETRY_JOB = "UPDATE jobs SET taken = 0, again = 0, due = ?1, rank = ?1, attempt = ?2 WHERE id = ?3"
READ_DISPATCH = "SELECT run_id, generation FROM jobs WHERE id = ? AND taken = 1"
READ_ATTEMPT = "SELECT attempt FROM jobs WHERE id = ?"
RESET_ATTEMPT = "UPDATE jobs SET attempt = 0 WHERE id = ? AND attempt > 0"
RELEASE_JOBS = "UPDATE jobs SET taken = 0 WHERE taken = 1"
COUNT_JOBS = "SELECT count(*) FROM jobs"


class UnfitDatabaseError(Exception):
    """The database is none of this program's, or was written by a newer version of it."""


def check_ownership(db: sqlite3.Connection) -> None:
    """Raise UnfitDatabaseError for a database that another program has made; nothing is written."""
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if tables and not {"apps", "jobs", "pending"} <= tables:
        shown = ", ".join(sorted(tables)[:5])
        raise UnfitDatabaseError(
            f"it is another program's (its tables: {shown}). Give the engine its own file."
        )


def migrate(db: sqlite3.Connection) -> None:
    """Bring the tables to the newest version, one transaction a version; raises UnfitDatabaseError."""
    found = db.execute("PRAGMA user_version").fetchone()[0]
    if found > len(MIGRATIONS):
        known = len(MIGRATIONS)
        raise UnfitDatabaseError(
            f"its tables have version {found}, this program knows {known}: upgrade flowctl."
        )
    for version in range(found, len(MIGRATIONS)):
        script = f"BEGIN IMMEDIATE; {MIGRATIONS[version]}; PRAGMA user_version = {version + 1}; COMMIT;"
        db.executescript(script)
