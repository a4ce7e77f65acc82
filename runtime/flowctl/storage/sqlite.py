"""SQLite storage: one file (or memory), one connection used by one thread at a time."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from itertools import chain, repeat
from pathlib import Path
from typing import TypeVar

from flowctl.errors import StorageError
from flowctl.storage import statements as sql
from flowctl.storage.database import Database
from flowctl.storage.sql import SQLStorage

T = TypeVar("T")
BUSY_SECONDS = 10.0
PAUSES_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05)
COMMITS_TO_MERGE = 300
"""After so many the log is merged into the file: about as often as SQLite itself would, but in the thread."""
_WORDS = {
    "rowid": "",
    "int": "INTEGER",
    "json": "BLOB",
    "order": "",
    "sequence": "INTEGER PRIMARY KEY AUTOINCREMENT",
}


class _BusyError(Exception):
    """Another process holds the database; nothing was done."""


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
        self._connection: sqlite3.Connection | None = None
        self._commits = 0
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None
        self._pool_lock = threading.Lock()

    async def open(self) -> None:
        """See Storage."""
        if self._connection is None:
            await super().open()

    async def close(self) -> None:
        """See Storage."""
        with self._pool_lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            await asyncio.to_thread(pool.shutdown)  # what was begun ends
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    async def _transact(
        self, work: Callable[[Database], T], *, writes: bool = True, is_short: bool = False
    ) -> T:
        """See SQLStorage: memory at once, a file in the storage's thread if it is long or has to wait."""
        if self._in_memory:
            return self._in_turn(work, writes)
        if is_short and self._connection is not None and self._lock.acquire(blocking=False):
            try:
                return self._now(work, writes)
            except _BusyError:
                pass  # another process writes
            finally:
                self._lock.release()
        return await asyncio.get_running_loop().run_in_executor(self._thread(), self._in_turn, work, writes)

    def _thread(self) -> concurrent.futures.ThreadPoolExecutor:
        with self._pool_lock:
            if self._pool is None:
                self._pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="flowctl-sqlite")
            return self._pool

    def _in_turn(self, work: Callable[[Database], T], writes: bool) -> T:
        """Wait for other threads and processes."""
        deadline, pauses = time.monotonic() + BUSY_SECONDS, chain(PAUSES_SECONDS, repeat(PAUSES_SECONDS[-1]))
        while True:
            try:
                with self._lock:
                    return self._now(work, writes)
            except _BusyError as err:
                if time.monotonic() > deadline:
                    raise StorageError(f"SQLite database {self.path!r}: {err.__cause__}") from err.__cause__
            time.sleep(next(pauses))

    def _now(self, work: Callable[[Database], T], writes: bool) -> T:
        """The caller has the lock. Raises _BusyError when another process is in the way."""
        db = self._connection or self._connect()
        try:
            db.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
            result = work(db)
            db.execute("COMMIT")
        except sqlite3.Error as err:
            _roll_back(db)
            if _is_busy(err):
                raise _BusyError from err
            raise StorageError(f"SQLite database {self.path!r}: {err}") from err
        except BaseException:
            _roll_back(db)
            raise
        if writes and not self._in_memory:
            self._commits += 1
            if self._commits % COMMITS_TO_MERGE == 0:
                self._thread().submit(self._merge_log)
        return result

    def _merge_log(self) -> None:
        """As far as nobody reads or writes; what is left is merged the next time."""
        with self._lock, contextlib.suppress(sqlite3.Error):
            if self._connection is not None:
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def _connect(self) -> sqlite3.Connection:
        try:
            if not self._in_memory:
                _prepare(Path(self.path))
            db = sqlite3.connect(
                self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            _use_wal(db)
            db.execute("PRAGMA synchronous = NORMAL")
            _migrate(db)
            db.execute("PRAGMA wal_autocheckpoint = 0")
            db.execute("PRAGMA busy_timeout = 0")
        except (sqlite3.Error, OSError) as err:
            raise StorageError(
                f"Cannot open the SQLite database {self.path!r}: {err}. "
                "Check that the file and its folder can be written."
            ) from err
        self._connection = db
        return db


def _prepare(path: Path) -> None:
    """Make the file's folder; raises OSError, also for a file that may only be read.

    SQLite would leave files beside that one that may only be read either, when it can be written again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not os.access(path, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
        raise PermissionError("it may only be read")


def _use_wal(db: sqlite3.Connection) -> None:
    """Keep a write-ahead log; SQLite itself does not wait here for another process that does so just now."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as err:
            if not _is_busy(err) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _is_busy(err: sqlite3.Error) -> bool:
    code: int | None = getattr(err, "sqlite_errorcode", None)  # errors of the module itself have none
    return code is not None and code & 0xFF == sqlite3.SQLITE_BUSY


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
