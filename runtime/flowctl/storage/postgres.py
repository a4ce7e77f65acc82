"""PostgreSQL storage: a pool of connections, each used by a thread at a time.

The only file that imports psycopg, and only when a storage is made (extra `postgres`).
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from flowctl.errors import ConfigurationError, StorageError
from flowctl.storage import statements as sql
from flowctl.storage.database import Database, Rows
from flowctl.storage.sql import SQLStorage

if TYPE_CHECKING:
    import psycopg
    import psycopg_pool

T = TypeVar("T")
CONNECT_SECONDS = 10
PAUSES_SECONDS = (0.05, 0.2, 1.0, 3.0)
_WORDS = {
    "rowid": "rowid BIGINT GENERATED ALWAYS AS IDENTITY,",
    "int": "BIGINT",
    "json": "TEXT",
    "order": ", rowid",
    "sequence": "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY",
}
_IS_MADE = "SELECT 1 FROM pg_catalog.pg_tables WHERE schemaname = %s AND tablename = 'migrations'"
_MIGRATIONS_TABLE = """
    CREATE TABLE migrations (version INTEGER PRIMARY KEY, applied_at TIMESTAMPTZ NOT NULL DEFAULT now())
"""
_LOCK = 0x666C6F77  # what advisory lock migrations take


class PostgresStorage(SQLStorage):
    """Runs in a PostgreSQL database: `PostgresStorage("postgresql://user:password@host/database")`.

    `dsn` is a URL or a libpq connection string; tables are kept in a schema of their own, which is made when
    it is missing. Uses up to `pool_size` connections, and works from several event loops and threads at once.
    Raises ConfigurationError without the extra `postgres`, StorageError when the database is out of reach.
    """

    def __init__(self, dsn: str, *, schema: str = "flowctl", pool_size: int = 10) -> None:
        if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", schema):
            raise ConfigurationError(
                f"PostgresStorage: {schema!r} is no schema name: use small letters, digits and underscores."
            )
        self.schema, self.pool_size = schema, pool_size
        self._dsn = dsn
        self._psycopg, self._psycopg_pool = _drivers()
        self._lock = threading.Lock()
        self._pool: psycopg_pool.ConnectionPool[Any] | None = None
        self._threads: concurrent.futures.ThreadPoolExecutor | None = None

    async def open(self) -> None:
        """See Storage."""
        if self._pool is None:
            await super().open()

    async def close(self) -> None:
        """See Storage."""
        with self._lock:
            threads, self._threads = self._threads, None
        if threads is not None:
            await asyncio.to_thread(threads.shutdown)  # what was begun ends
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            await asyncio.to_thread(pool.close)

    async def _transact(
        self, work: Callable[[Database], T], *, writes: bool = True, is_short: bool = False
    ) -> T:
        """See SQLStorage: in a thread, since each statement waits for the server."""
        del is_short
        begin = "BEGIN" if writes else "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
        with self._lock:
            if self._threads is None:
                self._threads = concurrent.futures.ThreadPoolExecutor(self.pool_size, "flowctl-postgres")
            threads = self._threads
        return await asyncio.get_running_loop().run_in_executor(threads, self._persist, work, begin)

    def _persist(self, work: Callable[[Database], T], begin: str) -> T:
        """Try again what was not committed because the connection was lost or another was in the way."""
        pauses = iter(PAUSES_SECONDS)
        while True:
            pool = self._opened()
            try:
                return self._attempt(pool, work, begin)
            except _NotCommittedError as err:
                pause = next(pauses, None)
                if pause is None:
                    raise StorageError(f"{self._name()}: {err.__cause__}") from err.__cause__
                time.sleep(pause)
                pool.check()
            except self._psycopg.Error as err:
                raise StorageError(f"{self._name()}: {err}") from err

    def _attempt(
        self, pool: psycopg_pool.ConnectionPool[Any], work: Callable[[Database], T], begin: str
    ) -> T:
        """One transaction: leaving the pool's context commits, or rolls back what raised."""
        try:
            connected = pool.connection(CONNECT_SECONDS)
            with connected as connection:
                try:
                    connection.execute(_marked(f'{begin}; SET LOCAL search_path TO "{self.schema}"'))
                    return work(_Connection(connection))
                except self._psycopg.OperationalError as err:
                    raise _NotCommittedError from err
        except self._psycopg_pool.PoolTimeout as err:
            raise _NotCommittedError from err

    def _opened(self) -> psycopg_pool.ConnectionPool[Any]:
        with self._lock:
            if self._pool is None:
                self._migrate()
                pool: psycopg_pool.ConnectionPool[Any] = self._psycopg_pool.ConnectionPool(
                    self._dsn,
                    min_size=1,
                    max_size=self.pool_size,
                    kwargs={"autocommit": True, "connect_timeout": CONNECT_SECONDS},
                    name="flowctl",
                    open=True,
                )
                self._pool = pool
            return self._pool

    def _migrate(self) -> None:
        """Bring the tables to the newest version; processes that try at once wait for each other."""
        try:
            with self._connect() as connection:
                version = _version(connection, self.schema)
            if version < len(sql.MIGRATIONS):
                with self._connect() as connection:  # a new one: it knows nothing from before the lock
                    connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
                    version = _upgrade(connection, self.schema)
        except self._psycopg.Error as err:
            raise StorageError(
                f"Cannot open {self._name()}: {err}. Check that the server runs, and the name, password and "
                "database of the connection string."
            ) from err
        sql.check_known(version)

    def _connect(self) -> psycopg.Connection[Any]:
        return self._psycopg.connect(self._dsn, connect_timeout=CONNECT_SECONDS)

    def _name(self) -> str:
        """Which database this is, without its password."""
        try:
            parts = self._psycopg.conninfo.conninfo_to_dict(self._dsn)
        except self._psycopg.Error:
            return "the PostgreSQL database (its connection string cannot be read)"
        return f"the PostgreSQL database {parts.get('dbname', '')!r} at {parts.get('host', 'localhost')}"


class _NotCommittedError(Exception):
    """Nothing was written; trying again may help."""


def _drivers() -> tuple[Any, Any]:
    try:
        import psycopg  # noqa: PLC0415 - an extra, and half a second of start-up
        import psycopg_pool  # noqa: PLC0415 - as above
    except ImportError as err:
        raise ConfigurationError(
            "PostgresStorage needs psycopg: pip install 'flowctl-workflows[postgres]'."
        ) from err
    return psycopg, psycopg_pool


class _Connection:
    """A psycopg connection as Database: `?` marks parameters."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection

    def execute(self, statement: str, values: Sequence[Any] = (), /) -> Rows:
        """See Database."""
        return self._connection.execute(_marked(statement), values)

    def executemany(self, statement: str, rows: Iterable[Sequence[Any]], /) -> object:
        """See Database."""
        with self._connection.cursor() as cursor:
            return cursor.executemany(_marked(statement), rows)


@cache
def _marked(statement: str) -> Any:
    return statement.replace("?", "%s")


def _version(connection: psycopg.Connection[Any], schema: str) -> int:
    if connection.execute(_IS_MADE, (schema,)).fetchone() is None:
        return 0
    connection.execute(_marked(f'SET LOCAL search_path TO "{schema}"'))
    known = connection.execute("SELECT max(version) FROM migrations").fetchone()
    return known[0] if known else 0


def _upgrade(connection: psycopg.Connection[Any], schema: str) -> int:
    version = _version(connection, schema)
    if version == 0:
        connection.execute(_marked(f'CREATE SCHEMA IF NOT EXISTS "{schema}"'))
        connection.execute(_marked(f'SET LOCAL search_path TO "{schema}"'))
        connection.execute(_MIGRATIONS_TABLE)
    for number, migration in enumerate(sql.MIGRATIONS[version:], version + 1):
        connection.execute(_marked(migration.format(**_WORDS)))
        connection.execute("INSERT INTO migrations (version) VALUES (%s)", (number,))
    return max(version, len(sql.MIGRATIONS))
