"""SQLite storage: one file (or memory), one connection used by one thread at a time."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import sqlite3
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import orjson

from flowctl.errors import StorageError
from flowctl.events import WorkflowEvent
from flowctl.snapshot import RunStatus, Snapshot, StepResult, StoredRun, StoredRuns
from flowctl.storage import sqlite_statements as sql
from flowctl.storage.base import Claim, Commit, Dispatch, RunPointer

T = TypeVar("T")
BUSY_TIMEOUT_MS = 10_000


def default_path() -> Path:
    """`.flowctl/flowctl.db` below the working folder; FLOWCTL_DIR names another folder."""
    return Path(os.environ.get("FLOWCTL_DIR", ".flowctl")) / "flowctl.db"


class SQLiteStorage:
    """Runs in an SQLite file (default: `.flowctl/flowctl.db`), or in memory with `":memory:"`.

    Several processes may share the file. Raises StorageError when it cannot be opened.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self.path = str(path if path is not None else default_path())
        self._in_memory = self.path == ":memory:"
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None

    async def open(self) -> None:
        """See Storage."""
        await self._do(lambda _: None)

    async def close(self) -> None:
        """See Storage."""
        with self._lock:
            connection, self._connection = self._connection, None
            pool, self._pool = self._pool, None
            if connection is not None:
                connection.close()
        if pool is not None:
            pool.shutdown(wait=False)

    async def create_run(
        self, workflow_id: str, run_id: str, *, resource_id: str | None, snapshot: Snapshot, now: int
    ) -> StoredRun:
        """See Storage."""

        def work(db: sqlite3.Connection) -> StoredRun | None:
            row = (workflow_id, run_id, resource_id, snapshot.status, now, now, _header(snapshot))
            db.execute(sql.INSERT_RUN, row)
            return _read_run(db, workflow_id, run_id)

        run = await self._do(work)
        if run is None:
            raise StorageError(f"Run {run_id!r} of {workflow_id!r} vanished while it was being created.")
        return run

    async def claim(self, claim: Claim) -> int | None:
        """See Storage."""

        def work(db: sqlite3.Connection) -> int | None:
            marks = ",".join("?" * len(claim.expected))
            lease = claim.lease
            row = db.execute(
                sql.CLAIM_RUN.format(marks=marks),
                (
                    claim.now,
                    _header(claim.snapshot),
                    claim.engine,
                    lease.owner if lease else None,
                    lease.until if lease else None,
                    claim.workflow_id,
                    claim.run_id,
                    *claim.expected,
                ),
            ).fetchone()
            if row is None:
                return None
            run = (claim.workflow_id, claim.run_id)
            if claim.records is not None:
                db.execute(sql.DELETE_RECORDS, run)
                rows = [(*run, k, _dump(r.to_json()), row[0], None, None) for k, r in claim.records.items()]
                db.executemany(sql.PUT_RECORD, rows)
            if claim.dispatch is not None:
                db.execute(sql.PUT_DISPATCH, (*run, row[0], _dump(claim.dispatch)))
            return row[0]

        return await self._do(work)

    async def commit(self, commit: Commit) -> bool:
        """See Storage."""

        def work(db: sqlite3.Connection) -> bool:
            run = (commit.workflow_id, commit.run_id)
            changed = db.execute(
                sql.UPDATE_RUN,
                (commit.snapshot.status, commit.now, _header(commit.snapshot), *run, commit.leg),
            )
            if changed.rowcount == 0:
                return False
            db.executemany(
                sql.PUT_RECORD,
                [
                    (
                        *run,
                        key,
                        _dump(write.record.to_json()),
                        commit.leg,
                        write.op,
                        _dump_or_none(write.memo),
                    )
                    for key, write in commit.records.items()
                ],
            )
            db.executemany(
                sql.PUT_EVENT,
                [(*run, f"{commit.leg}:{key}", _dump(event.to_json())) for key, event in commit.events],
            )
            return True

        return await self._do(work)

    async def finished_memo(
        self, workflow_id: str, run_id: str, *, leg: int, op: str
    ) -> Mapping[str, Any] | None:
        """See Storage."""

        def work(db: sqlite3.Connection) -> Any:
            row = db.execute(sql.FINISHED_MEMO, (workflow_id, run_id, leg, op)).fetchone()
            return orjson.loads(row[0]) if row else None

        return await self._do(work)

    async def cancel(self, workflow_id: str, run_id: str, *, event: WorkflowEvent, now: int) -> bool:
        """See Storage."""

        def work(db: sqlite3.Connection) -> bool:
            if db.execute(sql.CANCEL_RUN, (now, workflow_id, run_id)).rowcount == 0:
                return False
            db.execute(sql.PUT_EVENT, (workflow_id, run_id, "canceled", _dump(event.to_json())))
            return True

        return await self._do(work)

    async def save_snapshot(
        self, workflow_id: str, run_id: str, snapshot: Mapping[str, Any] | Snapshot
    ) -> None:
        """See Storage."""
        given = (
            snapshot if isinstance(snapshot, Snapshot) else Snapshot.from_json({"runId": run_id, **snapshot})
        )
        now = given.timestamp or int(datetime.now(UTC).timestamp() * 1000)

        def work(db: sqlite3.Connection) -> None:
            db.execute(sql.INSERT_RUN, (workflow_id, run_id, None, given.status, now, now, _header(given)))
            db.execute(sql.REPLACE_HEADER, (given.status, now, _header(given), workflow_id, run_id))
            db.execute(sql.DELETE_RECORDS, (workflow_id, run_id))
            db.executemany(
                sql.PUT_RECORD,
                [
                    (workflow_id, run_id, key, _dump(record.to_json()), 0, None, None)
                    for key, record in given.records.items()
                ],
            )

        await self._do(work)

    async def load_snapshot(self, workflow_id: str, run_id: str) -> dict[str, Any] | None:
        """See Storage."""
        run = await self.get_run(workflow_id, run_id)
        return run.snapshot.to_json() if run else None

    async def get_run(self, workflow_id: str, run_id: str) -> StoredRun | None:
        """See Storage."""
        return await self._do(lambda db: _read_run(db, workflow_id, run_id))

    async def list_runs(
        self,
        workflow_id: str | None = None,
        *,
        status: RunStatus | None = None,
        resource_id: str | None = None,
        from_date: datetime | None = None,
        to_date: datetime | None = None,
        page: int | None = None,
        per_page: int | None = None,
    ) -> StoredRuns:
        """See Storage."""
        wanted = {
            "workflow_id = ?": workflow_id,
            "status = ?": status,
            "resource_id = ?": resource_id,
            "created_at >= ?": _millis(from_date),
            "created_at <= ?": _millis(to_date),
        }
        terms = {term: value for term, value in wanted.items() if value is not None}
        where = " AND ".join(terms) or "1"
        window = (per_page, page * per_page) if page is not None and per_page is not None else (-1, 0)

        def work(db: sqlite3.Connection) -> StoredRuns:
            values = tuple(terms.values())
            total = db.execute(sql.COUNT_RUNS.format(where=where), values).fetchone()[0]
            rows = db.execute(sql.LIST_RUNS.format(where=where), (*values, *window)).fetchall()
            return StoredRuns([_run_of(db, row) for row in rows], total)

        return await self._do(work)

    async def delete_run(self, workflow_id: str, run_id: str) -> bool:
        """See Storage."""

        def work(db: sqlite3.Connection) -> bool:
            db.execute(sql.DELETE_RECORDS, (workflow_id, run_id))
            db.execute(sql.DELETE_EVENTS, (workflow_id, run_id))
            db.execute(sql.DELETE_DISPATCHES, (workflow_id, run_id))
            return db.execute(sql.DELETE_RUN, (workflow_id, run_id)).rowcount > 0

        return await self._do(work)

    async def read_events(
        self, workflow_id: str, run_id: str, *, after: int = 0
    ) -> list[tuple[int, WorkflowEvent]]:
        """See Storage."""

        def work(db: sqlite3.Connection) -> list[tuple[int, WorkflowEvent]]:
            rows = db.execute(sql.READ_EVENTS, (workflow_id, run_id, after)).fetchall()
            return [(seq, WorkflowEvent.from_json(orjson.loads(body))) for seq, body in rows]

        return await self._do(work)

    async def undelivered(self) -> list[Dispatch]:
        """See Storage."""

        def work(db: sqlite3.Connection) -> list[Dispatch]:
            rows = db.execute(sql.READ_DISPATCHES).fetchall()
            return [Dispatch(w, r, leg, orjson.loads(body)) for w, r, leg, body in rows]

        return await self._do(work)

    async def delivered(self, dispatch: Dispatch) -> None:
        """See Storage."""
        row = (dispatch.workflow_id, dispatch.run_id, dispatch.leg)
        await self._do(lambda db: db.execute(sql.DELETE_DISPATCH, row) and None)

    async def renew_leases(self, owner: str, *, until: int) -> None:
        """See Storage."""
        await self._do(lambda db: db.execute(sql.RENEW_LEASES, (until, owner)) and None)

    async def active_local_runs(self, now: int) -> list[RunPointer]:
        """See Storage."""

        def work(db: sqlite3.Connection) -> list[RunPointer]:
            rows = db.execute(sql.ACTIVE_LOCAL_RUNS).fetchall()
            return [RunPointer(w, r, owner if (until or 0) > now else None) for w, r, owner, until in rows]

        return await self._do(work)

    async def _do(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run work in one transaction: memory at once, a file in the writer thread."""
        if self._in_memory:
            return self._transact(work)
        return await asyncio.get_running_loop().run_in_executor(self._thread(), self._transact, work)

    def _thread(self) -> concurrent.futures.ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="flowctl-sqlite")
            return self._pool

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock:
            db = self._connection or self._connect()
            try:
                db.execute("BEGIN IMMEDIATE")
                result = work(db)
                db.execute("COMMIT")
            except sqlite3.Error as err:
                _roll_back(db)
                raise StorageError(f"SQLite database {self.path!r}: {err}") from err
            except BaseException:
                _roll_back(db)
                raise
            return result

    def _connect(self) -> sqlite3.Connection:
        try:
            if not self._in_memory:
                Path(self.path).parent.mkdir(parents=True, exist_ok=True)
            db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
            db.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            sql.migrate(db)
        except (sqlite3.Error, OSError) as err:
            raise StorageError(
                f"Cannot open the SQLite database {self.path!r}: {err}. Check that the folder can be written."
            ) from err
        self._connection = db
        return db


def _roll_back(db: sqlite3.Connection) -> None:
    if db.in_transaction:
        db.execute("ROLLBACK")


def _read_run(db: sqlite3.Connection, workflow_id: str, run_id: str) -> StoredRun | None:
    row = db.execute(sql.READ_RUN, (workflow_id, run_id)).fetchone()
    return _run_of(db, row) if row else None


def _run_of(db: sqlite3.Connection, row: tuple[Any, ...]) -> StoredRun:
    workflow_id, run_id, resource_id, status, created_at, updated_at, leg, header = row
    snapshot = Snapshot.from_json({**orjson.loads(header), "runId": run_id, "status": status})
    records = db.execute(sql.READ_RECORDS, (workflow_id, run_id)).fetchall()
    snapshot.records = {key: StepResult.from_json(orjson.loads(body)) for key, body in records}
    return StoredRun(workflow_id, run_id, resource_id, _iso(created_at), _iso(updated_at), snapshot, leg)


def _header(snapshot: Snapshot) -> bytes:
    return _dump(snapshot.header_json())


def _dump(value: Any) -> bytes:
    return orjson.dumps(value)


def _dump_or_none(value: Any) -> bytes | None:
    return None if value is None else orjson.dumps(value)


def _millis(date: datetime | None) -> int | None:
    return None if date is None else int(date.timestamp() * 1000)


def _iso(millis: int) -> str:
    return (
        datetime.fromtimestamp(millis / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )
