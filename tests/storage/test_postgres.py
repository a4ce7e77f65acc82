"""What is PostgreSQL's own: connections that break, what is asked of the connection string."""

from __future__ import annotations

import subprocess
import sys

import psycopg
import pytest

from flowctl import ConfigurationError, PostgresStorage, StorageError
from tests.storage.databases import Database, commit, create

pytestmark = pytest.mark.parametrize("shared", ["postgres"], indirect=True)


async def test_connections_that_broke_are_replaced(shared: Database) -> None:
    storage = shared.storage()
    await create(storage)
    with psycopg.connect(shared.dsn, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    assert await commit(storage) is False
    assert (await storage.get_run("w", "r")).status == "pending"


async def test_a_server_out_of_reach_is_named_without_its_password(shared: Database) -> None:
    storage = PostgresStorage("postgresql://me:secret@127.0.0.1:1/shop")
    with pytest.raises(StorageError, match=r"'shop' at 127\.0\.0\.1") as caught:
        await storage.open()
    assert "secret" not in str(caught.value)


async def test_a_connection_string_that_cannot_be_read_is_not_shown(shared: Database) -> None:
    with pytest.raises(StorageError) as caught:
        await PostgresStorage("postgresql://me:secret@host:port:1/").open()
    assert "Cannot open" in str(caught.value)


async def test_two_schemas_of_a_database_share_nothing(shared: Database) -> None:
    one, other = shared.storage(), PostgresStorage(shared.dsn, schema=f"{shared.schema}_b")
    await create(one)
    assert await other.get_run("w", "r") is None
    await other.close()


def test_a_schema_name_is_checked(shared: Database) -> None:
    with pytest.raises(ConfigurationError, match="no schema name"):
        PostgresStorage(shared.dsn, schema='x"; DROP TABLE runs; --')


def test_the_driver_is_loaded_when_a_storage_is_made_and_named_when_it_is_missing(shared: Database) -> None:
    script = """
import sys, flowctl
assert "psycopg" not in sys.modules
sys.modules["psycopg"] = None
try:
    flowctl.PostgresStorage("dbname=x")
except flowctl.ConfigurationError as err:
    print(err)
"""
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "pip install 'flowctl-workflows[postgres]'" in shown.stdout
