"""In-memory storage: plain dictionaries behind a lock, for tests and for runs that may go with the process.

Headers, records and events are kept as they are given, since nobody changes them once they are made. Whoever
reads gets copies, made through the same JSON as those that come from a database (`storage.rows`).
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, Unpack

import orjson

from flowctl.clock import now_ms
from flowctl.events import WorkflowEvent
from flowctl.snapshot import TERMINAL, RunStatus, Snapshot
from flowctl.storage.base import (
    Acting,
    Claim,
    Commit,
    Dispatch,
    Inside,
    Lease,
    RunFilters,
    RunPointer,
    TakeUp,
    Turn,
)
from flowctl.storage.kept import KeptRun
from flowctl.storage.lists import Window
from flowctl.storage.rows import dump, event_from, snapshot_from
from flowctl.stored_run import StoredRun, StoredRuns

_NOBODY = ""


class MemoryStorage:
    """Runs in this process's memory, for tests: as quick as it gets, and gone with the object.

    Behaves as the other storages do; several apps, threads and event loops may share one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[tuple[str, str], KeptRun] = {}
        self._outbox: dict[tuple[str, str], tuple[int, Mapping[str, Any]]] = {}
        self._turns: dict[tuple[str, str], dict[str, Acting]] = {}
        self._numbers = itertools.count(1)

    async def open(self) -> None:
        """See Storage."""

    async def close(self) -> None:
        """See Storage; the runs stay."""

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
        with self._lock:
            run = self._put((workflow_id, run_id), resource_id, snapshot, now, is_hidden=not is_shown)
            return run.read()

    async def claim(self, claim: Claim) -> int | None:
        """See Storage."""
        key, given = (claim.workflow_id, claim.run_id), claim.snapshot
        with self._lock:
            run = self._runs.get(key)
            if run is None or run.status not in claim.expected or claim.leg not in {None, run.leg}:
                return None
            if claim.execution not in {None, run.execution}:
                return None
            run.settle_shown(is_shown=claim.is_shown)
            run.status, run.base, run.header, run.updated_at = given.status, given, given, claim.now
            run.engine, run.lease = claim.engine, claim.lease
            if claim.records is not None:
                run.replace_records(claim.records, run.leg)
            run.leg += 1
            if claim.dispatch is not None:
                self._outbox[key] = (run.leg, claim.dispatch)
            return run.leg

    async def commit(self, commit: Commit) -> bool:
        """See Storage."""
        leg, given = commit.leg, commit.snapshot
        with self._lock:
            run = self._runs.get((commit.workflow_id, commit.run_id))
            if run is None or run.leg != leg or not run.is_active:
                return False
            held = run.entries.get(given.key) if isinstance(given, Inside) else run
            if held is None or commit.execution not in {None, held.execution}:
                return False
            run.settle_shown(is_shown=commit.is_shown)
            if isinstance(given, Inside):
                run.entries[given.key].keep_inside(given, leg)
            else:
                run.header = given
            run.status, run.updated_at = given.status, commit.now
            run.write(commit.records, leg)
            for key, event in commit.events:
                self._append(run, f"{leg}:{key}", event)
            return True

    async def finished_memo(
        self, workflow_id: str, run_id: str, *, leg: int | None, key: str, op: str
    ) -> Mapping[str, Any] | None:
        """See Storage."""
        with self._lock:
            run = self._runs.get((workflow_id, run_id))
            entry = run.entries.get(key) if run else None
            if entry is None or leg not in {None, entry.leg}:
                return None
            memo = entry.memo if entry.op == op and entry.memo is not None else entry.late.get(op)
            return None if memo is None else orjson.loads(dump(memo))

    async def cancel(self, workflow_id: str, run_id: str, *, event: WorkflowEvent, now: int) -> bool:
        """See Storage."""
        with self._lock:
            run = self._runs.get((workflow_id, run_id))
            if run is None or run.status in TERMINAL:
                return False
            run.status, run.updated_at, run.shown = "canceled", now, None
            self._append(run, "canceled", event)
            return True

    async def save_snapshot(
        self, workflow_id: str, run_id: str, snapshot: Mapping[str, Any] | Snapshot
    ) -> None:
        """See Storage."""
        given = deepcopy(snapshot_from(snapshot, run_id))  # it stays the caller's
        now = given.timestamp or now_ms()
        with self._lock:
            run = self._put((workflow_id, run_id), None, given, now)
            run.settle_shown(is_shown=True)
            run.status, run.base, run.header, run.updated_at = given.status, given, given, now
            run.replace_records(given.records, 0)

    async def load_snapshot(self, workflow_id: str, run_id: str) -> dict[str, Any] | None:
        """See Storage."""
        run = await self.get_shown_run(workflow_id, run_id)
        return run.snapshot.to_json() if run else None

    async def get_run(self, workflow_id: str, run_id: str) -> StoredRun | None:
        """See Storage."""
        await _let_others_in()
        with self._lock:
            run = self._runs.get((workflow_id, run_id))
            return run.read() if run else None

    async def get_shown_run(self, workflow_id: str, run_id: str) -> StoredRun | None:
        """See Storage."""
        await _let_others_in()
        with self._lock:
            run = self._runs.get((workflow_id, run_id))
            return run.read_shown() if run else None

    async def get_status(self, workflow_id: str, run_id: str) -> tuple[RunStatus, int] | None:
        """See Storage."""
        with self._lock:
            run = self._runs.get((workflow_id, run_id))
            return (run.status, run.leg) if run else None

    async def get_earlier_run(self, workflow_id: str, run_id: str) -> StoredRun | None:
        """See Storage."""
        with self._lock:
            run = self._runs.get((workflow_id, run_id))
            return run.read_earlier() if run else None

    async def list_runs(
        self,
        workflow_id: str | None = None,
        *,
        page: int | None = None,
        per_page: int | None = None,
        **filters: Unpack[RunFilters],
    ) -> StoredRuns:
        """See Storage."""
        await _let_others_in()
        runs, total = self._list(workflow_id, filters, Window.of_page(page=page, per_page=per_page))
        return StoredRuns(runs, total)

    async def list_runs_json(
        self,
        workflow_id: str,
        *,
        limit: int | None = None,
        offset: int = 0,
        **filters: Unpack[RunFilters],
    ) -> tuple[list[dict[str, Any]], int]:
        """See Storage."""
        await _let_others_in()
        runs, total = self._list(workflow_id, filters, Window(limit, offset))
        return [run.to_json() for run in runs], total

    async def count_runs(
        self, workflow_ids: Sequence[str], statuses: Sequence[RunStatus]
    ) -> dict[tuple[str, RunStatus], int]:
        """See Storage."""
        with self._lock:
            listed = [run for run in self._runs.values() if not run.is_hidden]
            shown: list[tuple[str, RunStatus]] = [(run.key[0], run.shown_status) for run in listed]
        counts = Counter(shown)
        return {(w, s): number for (w, s), number in counts.items() if w in workflow_ids and s in statuses}

    async def delete_run(self, workflow_id: str, run_id: str) -> bool:
        """See Storage."""
        with self._lock:
            return self._forget((workflow_id, run_id))

    async def prune(self, *, before: int, limit: int = 200) -> int:
        """See Storage."""
        with self._lock:
            ended = [r for r in self._runs.values() if r.status in TERMINAL and r.updated_at < before]
            oldest = sorted(ended, key=lambda run: run.updated_at)[:limit]
            return sum(self._forget(run.key) for run in oldest)

    async def read_events(
        self, workflow_id: str, run_id: str, *, after: int = 0
    ) -> list[tuple[int, WorkflowEvent]]:
        """See Storage."""
        await _let_others_in()
        with self._lock:
            run = self._runs.get((workflow_id, run_id))
            known = run.events if run else []
            new = known[bisect_right(known, after, key=lambda numbered: numbered[0]) :]
        return [(number, event_from(dump(event.to_json()))) for number, event in new]

    async def undelivered(self) -> list[Dispatch]:
        """See Storage."""
        with self._lock:
            waiting = list(self._outbox.items())
        return [Dispatch(*key, leg, orjson.loads(dump(body))) for key, (leg, body) in waiting]

    async def delivered(self, dispatch: Dispatch) -> None:
        """See Storage."""
        key = (dispatch.workflow_id, dispatch.run_id)
        with self._lock:
            if key in self._outbox and self._outbox[key][0] == dispatch.leg:
                del self._outbox[key]

    async def take_up(self, taken: TakeUp) -> None:
        """See Storage."""
        with self._lock:
            run = self._runs.get((taken.workflow_id, taken.run_id))
            if run is None or run.leg != taken.leg:
                return
            held = run if taken.key is None else run.entries.get(taken.key)
            if held is not None:
                held.execution = taken.execution

    async def take_turn(self, turn: Turn, *, now: int) -> Acting:
        """See Storage."""
        with self._lock:
            turns = self._turns.setdefault((turn.workflow_id, turn.run_id), {})
            acting = turns.setdefault(turn.engine_run, Acting(_NOBODY, now, 0))
            if acting.request == _NOBODY:
                acting = turns[turn.engine_run] = Acting(turn.request, now, acting.passed)
            return acting

    async def pass_turn(self, turn: Turn, *, passed: int) -> None:
        """See Storage."""
        with self._lock:
            turns = self._turns.get((turn.workflow_id, turn.run_id), {})
            acting = turns.get(turn.engine_run)
            if acting is not None and acting.request == turn.request:
                turns[turn.engine_run] = Acting(_NOBODY, acting.since, passed)

    async def renew_leases(self, owner: str, *, until: int) -> None:
        """See Storage."""
        with self._lock:
            for run in self._runs.values():
                if run.is_active and run.lease is not None and run.lease.owner == owner:
                    run.lease = Lease(owner, until)

    async def release_lease(self, workflow_id: str, run_id: str, *, owner: str) -> None:
        """See Storage."""
        with self._lock:
            run = self._runs.get((workflow_id, run_id))
            if run is not None and run.lease is not None and run.lease.owner == owner:
                run.lease = None

    async def active_local_runs(self, now: int) -> list[RunPointer]:
        """See Storage."""
        with self._lock:
            local = [run for run in self._runs.values() if run.is_active and run.engine == "local"]
            return [RunPointer(*run.key, run.holder(now), run.leg) for run in local]

    def _put(
        self,
        key: tuple[str, str],
        resource_id: str | None,
        snapshot: Snapshot,
        now: int,
        *,
        is_hidden: bool = False,
    ) -> KeptRun:
        """The run under a key, which is made if there is none."""
        if key not in self._runs:
            self._runs[key] = KeptRun(
                key, resource_id, now, now, snapshot, snapshot, snapshot.status, is_hidden
            )
        return self._runs[key]

    def _append(self, run: KeptRun, key: str, event: WorkflowEvent) -> None:
        if key not in run.event_keys:
            run.event_keys.add(key)
            run.events.append((next(self._numbers), event))

    def _list(
        self, workflow_id: str | None, filters: RunFilters, window: Window
    ) -> tuple[list[StoredRun], int]:
        """Runs as they are shown, newest first, and how many there are in all."""
        with self._lock:
            made_last_first = reversed(self._runs.values())
            found = [run for run in made_last_first if run.is_meant(workflow_id, filters)]
            found.sort(key=lambda run: run.created_at, reverse=True)
            end = None if window.limit is None else window.offset + window.limit
            shown = (run.read_shown() for run in found[window.offset : end])
            return [run for run in shown if run is not None], len(found)

    def _forget(self, key: tuple[str, str]) -> bool:
        self._outbox.pop(key, None)
        self._turns.pop(key, None)
        return self._runs.pop(key, None) is not None


async def _let_others_in() -> None:
    """Before a read: whoever reads in a loop until something has happened must let it happen."""
    await asyncio.sleep(0)
