"""Tables of every older version become those of today, with what they hold."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any

import psycopg
import pytest

from flowctl import StorageError
from flowctl.storage import postgres, sqlite, statements
from tests.storage.databases import Database, claim, commit, create

VERSIONS = range(1, len(statements.MIGRATIONS))
ROWS = """
    INSERT INTO runs (workflow_id, run_id, status, created_at, updated_at, header, leg)
    VALUES ('w', 'old', 'suspended', 5, 6, '{"context": {"input": 7}, "value": {"a": 1}}', 3);
    INSERT INTO records (workflow_id, run_id, key, body, leg)
    VALUES ('w', 'old', 'one', '{"status": "success", "output": 8}', 3);
    INSERT INTO events (workflow_id, run_id, key, body)
    VALUES ('w', 'old', '1:a', '{"type": "a", "runId": "old", "from": "WORKFLOW", "payload": {}}');
    INSERT INTO outbox (workflow_id, run_id, leg, body) VALUES ('w', 'old', 3, '{"kind": "resume"}');
"""


def make_old(database: Database, version: int) -> None:
    """The tables as that version of flowctl made them, with a run."""
    if database.kind == "file":
        with sqlite3.connect(database.folder / "runs.db") as old:
            for migration in statements.MIGRATIONS[:version]:
                old.executescript(migration.format(**sqlite._WORDS))
            old.executescript(f"{ROWS}; PRAGMA user_version = {version};")
        old.close()
        return
    with psycopg.connect(database.dsn) as old:
        old.execute(f"CREATE SCHEMA {database.schema}; SET LOCAL search_path TO {database.schema}")
        old.execute(postgres._MIGRATIONS_TABLE)
        for migration in statements.MIGRATIONS[:version]:
            old.execute(migration.format(**postgres._WORDS))
        old.execute(f"{ROWS}; INSERT INTO migrations (version) VALUES ({version})")


@pytest.mark.parametrize("version", VERSIONS)
async def test_runs_of_an_older_version_go_on(shared: Database, version: int) -> None:
    make_old(shared, version)
    storage: Any = shared.storage()
    stored = await storage.get_run("w", "old")
    assert (stored.snapshot.input, stored.snapshot.state, stored.steps["one"].output) == (7, {"a": 1}, 8)
    assert len(await storage.read_events("w", "old")) == len(await storage.undelivered()) == 1
    assert await claim(storage, "old", expected=["suspended"]) == 4
    assert await commit(storage, "old", leg=4, two=2, status="success")
    assert (await storage.list_runs(status="success")).runs[0].steps["two"].output == 2


@pytest.mark.parametrize("version", VERSIONS)
async def test_upgrades_that_are_tried_at_once_happen_once(shared: Database, version: int) -> None:
    make_old(shared, version)
    storages = [shared.storage() for _ in range(6)]
    await asyncio.gather(*(storage.open() for storage in storages))
    assert [(await storage.get_run("w", "old")).leg for storage in storages] == [3] * 6


async def test_tables_of_a_newer_version_are_refused(shared: Database) -> None:
    await create(shared.storage())
    if shared.kind == "file":
        with sqlite3.connect(shared.folder / "runs.db") as db:
            db.execute("PRAGMA user_version = 999")
        db.close()
    else:
        with psycopg.connect(shared.dsn) as db:
            db.execute(f"INSERT INTO {shared.schema}.migrations (version) VALUES (999)")
    with pytest.raises(StorageError, match=r"newer flowctl .*999"):
        await shared.storage().open()
