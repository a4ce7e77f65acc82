"""The verbs of Storage as SQL transactions, for any database that speaks the statements' dialect.

A database fills one hole: `_transact`, which runs a piece of work in a transaction.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, Unpack

import orjson

from flowctl.clock import now_ms
from flowctl.errors import StorageError
from flowctl.events import WorkflowEvent
from flowctl.snapshot import ACTIVE, RunStatus, Snapshot, StepResult
from flowctl.storage import lists, retention
from flowctl.storage import statements as sql
from flowctl.storage.base import Acting, Claim, Commit, Dispatch, Inside, RunFilters, RunPointer, TakeUp, Turn
from flowctl.storage.database import Database
from flowctl.storage.lists import Window
from flowctl.storage.rows import (
    Row,
    base_of,
    body_of,
    created_run,
    dump,
    dump_or_none,
    event_from,
    header_of,
    listed_run,
    shown_run,
    snapshot_from,
    stored_run,
)
from flowctl.storage.shown import settle_shown, shown_as_it_stands
from flowctl.stored_run import StoredRun, StoredRuns

T = TypeVar("T")
NEWEST = 2**31 - 1
FEW = 100


class _LongerError(Exception):
    """There are more rows than were asked for."""


class _RefusedError(Exception):
    """Another execution has taken the part up, or its record is gone: nothing is to be written."""


class SQLStorage(ABC):
    """See Storage; what the statements mean is written here, how a transaction is made is not."""

    @abstractmethod
    async def _transact(
        self, work: Callable[[Database], T], *, writes: bool = True, is_short: bool = False
    ) -> T:
        """Run work in one transaction; one that only reads sees a single moment.

        What `is_short` may hold up an event loop, unless it has to wait for another transaction.
        """

    async def _read(self, work: Callable[[Database, int], T]) -> T:
        """Read a few rows at once; where there are more than that, all of them, as something longer."""
        await asyncio.sleep(0)  # whoever reads in a loop until something has happened must let it happen
        try:
            return await self._transact(lambda db: work(db, FEW), writes=False, is_short=True)
        except _LongerError:
            return await self._transact(lambda db: work(db, sql.ALL), writes=False)

    async def open(self) -> None:
        """See Storage."""
        await self._transact(lambda _: None, writes=False)

    async def create_run(
        self,
        workflow_id: str,
        run_id: str,
        *,
        resource_id: str | None,
        snapshot: Snapshot,
        now: int,
        is_shown: bool = True,
    ) -> StoredRun:
        """See Storage."""
        header = header_of(snapshot)

        def work(db: Database) -> StoredRun | None:
            row = (
                workflow_id,
                run_id,
                resource_id,
                snapshot.status,
                snapshot.status,
                now,
                now,
                header,
                int(not is_shown),
            )
            if db.execute(sql.INSERT_RUN, row).rowcount:
                db.execute(sql.PUT_BASE, (workflow_id, run_id, base_of(snapshot), header))
                return created_run(workflow_id, resource_id, snapshot, now)
            return _read_run(db, workflow_id, run_id)

        run = await self._transact(work, is_short=True)
        if run is None:
            raise StorageError(f"Run {run_id!r} of {workflow_id!r} vanished while it was being created.")
        return run

    async def claim(self, claim: Claim) -> int | None:
        """See Storage."""
        header = header_of(claim.snapshot)

        def work(db: Database) -> int | None:
            lease, run = claim.lease, (claim.workflow_id, claim.run_id)
            holder = (claim.engine, lease.owner if lease else None, lease.until if lease else None)
            before = None if claim.is_shown else shown_as_it_stands(db, run)
            row = db.execute(
                sql.CLAIM_RUN.format(marks=",".join("?" * len(claim.expected))),
                (
                    claim.snapshot.status,
                    claim.now,
                    header,
                    *holder,
                    claim.snapshot.status if claim.is_shown else None,
                    *run,
                    *claim.expected,
                    claim.leg,
                    claim.execution,
                ),
            ).fetchone()
            if row is None:
                return None
            db.execute(sql.PUT_BASE, (*run, base_of(claim.snapshot), header))
            settle_shown(db, run, before, claim, is_apart=row[0])
            leg: int = row[1]
            if claim.records is not None:
                _replace_records(db, run, claim.records, leg=leg - 1)
            if claim.dispatch is not None:
                db.execute(sql.PUT_DISPATCH, (*run, leg, dump(claim.dispatch)))
            return leg

        return await self._transact(work, is_short=claim.records is None and claim.is_shown)

    async def commit(self, commit: Commit) -> bool:
        """See Storage."""
        run, leg = (commit.workflow_id, commit.run_id), commit.leg
        change = _header_change(commit)
        records = [
            (
                *run,
                key,
                body_of(write.record),
                leg,
                write.op,
                dump_or_none(write.memo),
                dump_or_none(write.late or None),
            )
            for key, write in commit.records.items()
            if write is not None
        ]
        forgotten = [
            (leg, leg, *run, len(key), key) for key, write in commit.records.items() if write is None
        ]
        events = [(*run, f"{leg}:{key}", dump(event.to_json())) for key, event in commit.events]

        def work(db: Database) -> bool:
            before = None if commit.is_shown else shown_as_it_stands(db, run)
            row = change(db)
            if row is None:
                return False
            settle_shown(db, run, before, commit, is_apart=row[0])
            if forgotten:
                db.executemany(sql.FORGET_RECORDS_BELOW, forgotten)
            if records:
                db.executemany(sql.PUT_RECORD, records)
            if events:
                db.executemany(sql.PUT_EVENT, events)
            return True

        try:
            return await self._transact(work, is_short=commit.is_shown)
        except _RefusedError:
            return False

    async def finished_memo(
        self, workflow_id: str, run_id: str, *, leg: int | None, key: str, op: str
    ) -> Mapping[str, Any] | None:
        """See Storage."""

        def work(db: Database) -> Any:
            legs = (0, NEWEST) if leg is None else (leg, leg)
            row = db.execute(sql.FINISHED_MEMO, (op, workflow_id, run_id, key, *legs)).fetchone()
            own, late = row or (None, None)
            return orjson.loads(own) if own else orjson.loads(late or "{}").get(op)

        return await self._transact(work, writes=False, is_short=True)

    async def cancel(self, workflow_id: str, run_id: str, *, event: WorkflowEvent, now: int) -> bool:
        """See Storage."""

        def work(db: Database) -> bool:
            if db.execute(sql.CANCEL_RUN, (now, workflow_id, run_id)).rowcount == 0:
                return False
            db.execute(sql.PUT_EVENT, (workflow_id, run_id, "canceled", dump(event.to_json())))
            return True

        return await self._transact(work)

    async def save_snapshot(
        self, workflow_id: str, run_id: str, snapshot: Mapping[str, Any] | Snapshot
    ) -> None:
        """See Storage."""
        given = snapshot_from(snapshot, run_id)
        now, run = given.timestamp or now_ms(), (workflow_id, run_id)

        def work(db: Database) -> None:
            header = header_of(given)
            db.execute(sql.INSERT_RUN, (*run, None, given.status, given.status, now, now, header, 0))
            db.execute(sql.REPLACE_HEADER, (given.status, now, header, given.status, *run))
            db.execute(sql.PUT_BASE, (*run, base_of(given), header))
            _replace_records(db, run, given.records, leg=0)

        await self._transact(work)

    async def load_snapshot(self, workflow_id: str, run_id: str) -> dict[str, Any] | None:
        """See Storage."""
        run = await self.get_shown_run(workflow_id, run_id)
        return run.snapshot.to_json() if run else None

    async def get_run(self, workflow_id: str, run_id: str) -> StoredRun | None:
        """See Storage."""
        return await self._read(lambda db, limit: _read_run(db, workflow_id, run_id, limit))

    async def get_shown_run(self, workflow_id: str, run_id: str) -> StoredRun | None:
        """See Storage."""

        def work(db: Database) -> StoredRun | None:
            row = db.execute(sql.READ_SHOWN, (workflow_id, run_id)).fetchone()
            if row is None or row[0] is None:
                return _read_run(db, workflow_id, run_id) if row else None
            return StoredRun.from_json(orjson.loads(row[0]))

        return await self._transact(work, writes=False)

    async def get_status(self, workflow_id: str, run_id: str) -> tuple[RunStatus, int] | None:
        """See Storage."""

        def work(db: Database) -> Any:
            return db.execute(sql.READ_STATUS, (workflow_id, run_id)).fetchone()

        row = await self._transact(work, writes=False, is_short=True)
        return None if row is None else (row[0], row[1])

    async def get_earlier_run(self, workflow_id: str, run_id: str) -> StoredRun | None:
        """See Storage."""

        def work(db: Database) -> StoredRun | None:
            run = (workflow_id, run_id)
            row = db.execute(sql.READ_EARLIER_RUN, run).fetchone()
            if row is None:
                return None
            records = db.execute(sql.READ_EARLIER_RECORDS, (row[6], *run)).fetchall()
            return stored_run(row, records, whole=False)

        return await self._transact(work, writes=False)

    async def list_runs(
        self,
        workflow_id: str | None = None,
        *,
        page: int | None = None,
        per_page: int | None = None,
        **filters: Unpack[RunFilters],
    ) -> StoredRuns:
        """See Storage."""
        window = Window.of_page(page=page, per_page=per_page)
        found = await self._transact(lambda db: lists.find(db, workflow_id, filters, window), writes=False)
        return StoredRuns([shown_run(row, records) for row, records in found.rows], found.total)

    async def list_runs_json(
        self,
        workflow_id: str,
        *,
        limit: int | None = None,
        offset: int = 0,
        **filters: Unpack[RunFilters],
    ) -> tuple[list[dict[str, Any]], int]:
        """See Storage."""
        window = Window(limit, offset)
        found = await self._transact(lambda db: lists.find(db, workflow_id, filters, window), writes=False)
        return [listed_run(row, records) for row, records in found.rows], found.total

    async def count_runs(
        self, workflow_ids: Sequence[str], statuses: Sequence[RunStatus]
    ) -> dict[tuple[str, RunStatus], int]:
        """See Storage."""
        return await self._transact(lambda db: lists.count(db, workflow_ids, statuses), writes=False)

    async def delete_run(self, workflow_id: str, run_id: str) -> bool:
        """See Storage."""
        return await self._transact(lambda db: retention.delete(db, workflow_id, run_id))

    async def prune(self, *, before: int, limit: int = 200) -> int:
        """See Storage."""
        return await self._transact(lambda db: retention.prune(db, before=before, limit=limit))

    async def read_events(
        self, workflow_id: str, run_id: str, *, after: int = 0
    ) -> list[tuple[int, WorkflowEvent]]:
        """See Storage."""

        def work(db: Database, limit: int) -> list[tuple[int, WorkflowEvent]]:
            rows = _whole(db.execute(sql.READ_EVENTS, (workflow_id, run_id, after, limit)).fetchall(), limit)
            return [(seq, event_from(body)) for seq, body in rows]

        return await self._read(work)

    async def undelivered(self) -> list[Dispatch]:
        """See Storage."""

        def work(db: Database) -> list[Dispatch]:
            rows = db.execute(sql.READ_DISPATCHES).fetchall()
            return [Dispatch(w, r, leg, orjson.loads(body)) for w, r, leg, body in rows]

        return await self._transact(work, writes=False)

    async def delivered(self, dispatch: Dispatch) -> None:
        """See Storage."""
        row = (dispatch.workflow_id, dispatch.run_id, dispatch.leg)
        await self._transact(lambda db: db.execute(sql.DELETE_DISPATCH, row) and None, is_short=True)

    async def take_up(self, taken: TakeUp) -> None:
        """See Storage."""
        run, statement = [taken.workflow_id, taken.run_id], sql.TAKE_UP_RUN
        if taken.key is not None:
            run, statement = [*run, taken.key], sql.TAKE_UP_PART
        values = (taken.execution, *run, taken.leg)
        await self._transact(lambda db: db.execute(statement, values) and None, is_short=True)

    async def take_turn(self, turn: Turn, *, now: int) -> Acting:
        """See Storage."""
        values = (turn.workflow_id, turn.run_id, turn.engine_run, turn.request, now)
        return await self._transact(
            lambda db: Acting(*db.execute(sql.TAKE_TURN, values).fetchone()), is_short=True
        )

    async def pass_turn(self, turn: Turn, *, passed: int) -> None:
        """See Storage."""
        values = (passed, turn.workflow_id, turn.run_id, turn.engine_run, turn.request)
        await self._transact(lambda db: db.execute(sql.END_TURN, values) and None, is_short=True)

    async def renew_leases(self, owner: str, *, until: int) -> None:
        """See Storage."""
        await self._transact(lambda db: db.execute(sql.RENEW_LEASES, (until, owner)) and None)

    async def release_lease(self, workflow_id: str, run_id: str, *, owner: str) -> None:
        """See Storage."""
        values = (workflow_id, run_id, owner)
        await self._transact(lambda db: db.execute(sql.RELEASE_LEASE, values) and None)

    async def active_local_runs(self, now: int) -> list[RunPointer]:
        """See Storage."""

        def work(db: Database) -> list[RunPointer]:
            rows = db.execute(sql.ACTIVE_LOCAL_RUNS).fetchall()
            return [
                RunPointer(w, r, owner if (until or 0) > now else None, leg)
                for w, r, owner, until, leg in rows
            ]

        return await self._transact(work, writes=False)


def _read_run(db: Database, workflow_id: str, run_id: str, limit: int = sql.ALL) -> StoredRun | None:
    row = db.execute(sql.READ_RUN, (workflow_id, run_id)).fetchone()
    if row is None:
        return None
    return stored_run(
        row, _whole(db.execute(sql.READ_RECORDS, (workflow_id, run_id, limit)).fetchall(), limit)
    )


def _whole(rows: list[Any], limit: int) -> list[Any]:
    """Rows of which there are fewer than the limit; raises _LongerError."""
    if len(rows) >= limit:
        raise _LongerError
    return rows


def _replace_records(
    db: Database, run: tuple[str, str], records: Mapping[str, StepResult], *, leg: int
) -> None:
    db.execute(sql.DELETE_RECORDS, run)
    rows = [(*run, key, body_of(record), leg, None, None, None) for key, record in records.items()]
    if rows:
        db.executemany(sql.PUT_RECORD, rows)


def _header_change(commit: Commit) -> Callable[[Database], Row | None]:
    """What writes the header, or what stands for it, and answers whether another state is shown.

    That answers None, and has written nothing, when the run has ended or moved on, or another execution has
    taken it up. Raises _RefusedError.
    """
    given, shown_status = commit.snapshot, commit.snapshot.status if commit.is_shown else None
    if isinstance(given, Snapshot):
        return _snapshot_change(commit, given, shown_status)
    return _inside_change(commit, given, shown_status)


def _snapshot_change(
    commit: Commit, given: Snapshot, shown_status: RunStatus | None
) -> Callable[[Database], Row | None]:
    run, header = (commit.workflow_id, commit.run_id, commit.leg), header_of(given)
    same = (commit.now, header, *run, given.status, shown_status, commit.execution)
    any_status = (given.status, commit.now, header, shown_status, *run, commit.execution)

    def change(db: Database) -> Row | None:
        # most commits leave the status alone: then no index is touched, nor RETURNING used, which is slow
        if given.status in ACTIVE and db.execute(sql.UPDATE_HEADER, same).rowcount:
            return (False,)
        return db.execute(sql.UPDATE_RUN, any_status).fetchone()

    return change


def _inside_change(
    commit: Commit, given: Inside, shown_status: RunStatus | None
) -> Callable[[Database], Row | None]:
    run, leg = (commit.workflow_id, commit.run_id), commit.leg
    touch = (given.status, commit.now, shown_status, *run, leg)
    kept = (leg, leg, given.op, dump(given.memo), *run, given.key, commit.execution)

    def change(db: Database) -> Row | None:
        touched = db.execute(sql.TOUCH_RUN, touch).fetchone()
        if touched is not None and not db.execute(sql.PUT_INSIDE, kept).rowcount:
            raise _RefusedError
        return touched

    return change
