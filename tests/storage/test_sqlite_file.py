"""An SQLite file: short work is done at once, what has to wait does so beside the event loop."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any

import pytest

from flowctl import SQLiteStorage
from flowctl.errors import StorageError
from flowctl.storage import sqlite
from tests.storage.databases import begun, claim, commit, create, snapshot


@pytest.fixture
async def file(tmp_path: Any) -> Any:
    """A storage with a run that goes on."""
    storage = SQLiteStorage(tmp_path / "runs.db")
    await begun(storage)
    yield storage
    await storage.close()


def locked(storage: SQLiteStorage) -> sqlite3.Connection:
    """Another process's connection in the middle of a transaction."""
    other = sqlite3.connect(storage.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return other


async def test_a_short_commit_ends_without_giving_the_event_loop_away(file: SQLiteStorage) -> None:
    with pytest.raises(StopIteration, match="True"):
        commit(file, a=1).send(None)


async def test_a_commit_waits_for_another_process_while_the_event_loop_goes_on(file: SQLiteStorage) -> None:
    other = locked(file)
    writing = asyncio.create_task(commit(file, a=1))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not writing.done()
    other.execute("COMMIT")
    other.close()
    assert await writing
    stored = await file.get_run("w", "r")
    assert stored is not None
    assert stored.snapshot.records["a"].output == 1


async def test_commits_keep_their_order_when_some_of_them_had_to_wait(file: SQLiteStorage) -> None:
    other = locked(file)
    writing = [asyncio.create_task(commit(file, events=[f"e{n}"])) for n in range(5)]
    await asyncio.sleep(0)
    other.execute("COMMIT")
    other.close()
    assert all(await asyncio.gather(*writing))
    assert len(await file.read_events("w", "r")) == 5


async def test_a_database_that_stays_locked_is_an_error_that_says_so(
    file: SQLiteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.05)
    other = locked(file)
    with pytest.raises(StorageError, match="locked"):
        await commit(file, a=1)
    other.close()
    assert await commit(file, a=1)


async def test_the_log_is_merged_into_the_file_now_and_then(
    file: SQLiteStorage, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "COMMITS_TO_MERGE", 5)
    before = (tmp_path / "runs.db").stat().st_size
    for number in range(10):
        await commit(file, **{f"s{number}": "x" * 50_000})
    async with asyncio.timeout(20):
        while (tmp_path / "runs.db").stat().st_size < before + 250_000:  # noqa: ASYNC110 - the thread tells nobody
            await asyncio.sleep(0.005)


async def test_a_database_may_be_in_memory() -> None:
    storage = SQLiteStorage(":memory:")
    await begun(storage)
    await commit(storage, one=1, events=["a"])
    stored = await storage.get_run("w", "r")
    assert stored is not None
    assert (stored.steps["one"].output, len(await storage.read_events("w", "r"))) == (1, 1)
    await storage.close()


async def test_a_large_input_is_not_written_anew_with_each_step(tmp_path: Any) -> None:
    storage = SQLiteStorage(tmp_path / "runs.db")
    await create(storage)
    await claim(storage, snapshot=snapshot(input="x" * 1_000_000))
    for number in range(30):
        await commit(storage, snapshot=snapshot(state={"n": "x" * number}))
    written = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert written < 5_000_000
    await storage.close()


async def test_a_file_that_may_only_be_read_is_told_and_left_alone(tmp_path: Any, monkeypatch: Any) -> None:
    path = tmp_path / "runs.db"
    storage = SQLiteStorage(path)
    await storage.open()
    await storage.close()
    monkeypatch.setattr("os.access", lambda *_, **__: False)  # as for a user whom permissions bind
    with pytest.raises(StorageError, match="it may only be read"):
        await SQLiteStorage(path).open()
    assert [file.name for file in tmp_path.iterdir()] == ["runs.db"]
