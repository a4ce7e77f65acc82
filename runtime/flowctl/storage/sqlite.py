"""SQLite storage: one file (or memory), one connection used by one thread at a time."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from flowctl.errors import StorageError
from flowctl.storage import statements as sql
from flowctl.storage.sql import Database, SQLStorage

T = TypeVar("T")
BUSY_TIMEOUT_MS = 10_000
COUNTS_KEPT = 64
_WORDS = {
    "rowid": "",
    "int": "INTEGER",
    "json": "BLOB",
    "order": "",
    "sequence": "INTEGER PRIMARY KEY AUTOINCREMENT",
}


def default_path() -> Path:
    """`.flowctl/flowctl.db` below the working folder; FLOWCTL_DIR names another folder."""
    return Path(os.environ.get("FLOWCTL_DIR", ".flowctl")) / "flowctl.db"


class SQLiteStorage(SQLStorage):
    """Runs in an SQLite file (default: `.flowctl/flowctl.db`), or in memory with `":memory:"`.

    Several processes may share the file. A commit survives the death of the process; the machine's power
    failing may take the last ones along. Raises StorageError when the file cannot be opened.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = str(path if path is not None else default_path())
        self._in_memory = self.path == ":memory:"
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, tuple[Any, ...]], int] = {}
        self._counted_at = (0, 0)
        self._connection: sqlite3.Connection | None = None
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None

    async def open(self) -> None:
        """See Storage."""
        if self._connection is None:
            await super().open()

    async def close(self) -> None:
        """See Storage."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            await asyncio.to_thread(pool.shutdown)  # what was begun ends
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    async def _transact(self, work: Callable[[Database], T], *, writes: bool = True) -> T:
        """See SQLStorage: memory at once, a file in the storage's thread."""
        if self._in_memory:
            return self._now(work, writes)
        return await asyncio.get_running_loop().run_in_executor(self._thread(), self._now, work, writes)

    def _thread(self) -> concurrent.futures.ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="flowctl-sqlite")
            return self._pool

    def _now(self, work: Callable[[Database], T], writes: bool) -> T:
        with self._lock:
            db = self._connection or self._connect()
            try:
                db.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
                result = work(db)
                db.execute("COMMIT")
            except sqlite3.Error as err:
                _roll_back(db)
                raise StorageError(f"SQLite database {self.path!r}: {err}") from err
            except BaseException:
                _roll_back(db)
                raise
            return result

    def _count(self, db: Any, where: str, values: tuple[Any, ...]) -> int:
        """A count is kept until somebody writes: this connection or, by SQLite's own version, another."""
        version = (db.execute("PRAGMA data_version").fetchone()[0], db.total_changes)
        if version != self._counted_at or len(self._counts) > COUNTS_KEPT:
            self._counts.clear()
            self._counted_at = version
        if (where, values) not in self._counts:
            self._counts[where, values] = super()._count(db, where, values)
        return self._counts[where, values]

    def _connect(self) -> sqlite3.Connection:
        try:
            if not self._in_memory:
                Path(self.path).parent.mkdir(parents=True, exist_ok=True)
            db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            db.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
            _use_wal(db)
            db.execute("PRAGMA synchronous = NORMAL")
            _migrate(db)
        except (sqlite3.Error, OSError) as err:
            raise StorageError(
                f"Cannot open the SQLite database {self.path!r}: {err}. Check that the folder can be written."
            ) from err
        self._connection = db
        self._counts.clear()
        return db


def _use_wal(db: sqlite3.Connection) -> None:
    """Keep a write-ahead log; SQLite itself does not wait here for another process that does so just now."""
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as err:
            if err.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _roll_back(db: sqlite3.Connection) -> None:
    if db.in_transaction:
        db.execute("ROLLBACK")


def _migrate(db: sqlite3.Connection) -> None:
    """Bring the tables to the newest version, one transaction a version."""
    while (version := _version(db)) < len(sql.MIGRATIONS):
        db.execute("BEGIN IMMEDIATE")
        try:
            if _version(db) == version:
                for statement in sql.MIGRATIONS[version].format(**_WORDS).split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {version + 1}")
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            raise
    sql.check_known(version)


def _version(db: sqlite3.Connection) -> int:
    return db.execute("PRAGMA user_version").fetchone()[0]
