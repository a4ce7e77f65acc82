"""The engine's state in one SQLite file (or in memory): events, runs, steps, pending operations, jobs.

One connection, used by the event loop's thread alone; a turn is one transaction.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from flowctl.engine import statements as sql
from flowctl.engine.flow_control import Throttle
from flowctl.engine.protocol import Event, Function, iso

OPEN_SECONDS = 3.0
"""How long an engine that ends may take to let go of its file."""
_AS_EFFECTIVE = os.access in os.supports_effective_ids
LITTLE_BYTES = 2**20
"""What a disk has to have left, about, for a database to be opened."""


@dataclass(frozen=True, slots=True)
class Job:
    """Something due for a run: call it (`step`), end a sleep, or give up a wait.

    `generation` counts how often it was taken: what an earlier taker still says is stale. `due` is when
    it was to be taken.
    """

    id: int
    run_id: str
    target: str
    kind: str
    attempt: int
    generation: int = 0
    due: int = 0


@dataclass(frozen=True, slots=True)
class RunRow:
    """A function's run; what apps sent and answered is kept as it is stored."""

    run_id: str
    slug: str
    function_id: str
    event_id: str
    event_json: bytes
    status: str
    started_at: int
    ended_at: int | None
    output_json: bytes | None
    sdk_version: int
    batch_json: bytes | None
    gates_json: bytes | None
    url: str | None

    @property
    def event(self) -> dict[str, Any]:
        """The event that began it, parsed anew at each use."""
        return orjson.loads(self.event_json)

    @property
    def events_json(self) -> bytes:
        """All events that began it, as a JSON list."""
        return b"[%b]" % self.event_json if self.batch_json is None else self.batch_json

    @property
    def events(self) -> list[dict[str, Any]]:
        """All events that began it: more than one for a batch only."""
        return orjson.loads(self.events_json)

    @property
    def output(self) -> Any:
        """What it came to; None while it goes on."""
        return None if self.output_json is None else orjson.loads(self.output_json)

    def to_json(self) -> dict[str, Any]:
        """As the API shows it."""
        return {
            "run_id": self.run_id,
            "run_started_at": iso(self.started_at),
            "function_id": self.function_id,
            "function_version": 0,
            "environment_id": "00000000-0000-4000-b000-000000000000",
            "event_id": self.event_id,
            "status": self.status,
            "ended_at": iso(self.ended_at) if self.ended_at else None,
            "output": self.output,
        }


class StepRow(NamedTuple):
    """A step that has ended: the later, the higher its number. `body` is its encoded end."""

    number: int
    step_id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class StateSize:
    """Bytes of a run's encoded steps: all of them, and the largest."""

    total: int
    largest: int


class DatabaseError(Exception):
    """An engine's database file cannot be used."""

    def __init__(self, path: Path, reason: Exception, *, was_read: bool = False) -> None:
        why = explained(reason, _free_bytes(path), was_read=was_read)
        super().__init__(f"Cannot use the database {str(path)!r}: {why}")


def _free_bytes(path: Path) -> int:
    try:
        return shutil.disk_usage(path.parent).free
    except OSError:
        return LITTLE_BYTES


def explained(reason: Exception, free: int, *, was_read: bool = False) -> str:
    """Why a file cannot be used, on a disk with so many free bytes, and the way out.

    One that is locked and `was_read` is no other engine's: that lets nobody read it.
    """
    if free < LITTLE_BYTES and isinstance(reason, sqlite3.OperationalError):
        return f"{reason}. Its disk is full: make room, or give a file on another one."
    if not isinstance(reason, sqlite3.DatabaseError | OSError):
        return str(reason)
    if "locked" in str(reason):
        user = "a program that reads it, such as a SQLite shell," if was_read else "another engine"
        return f"{user} uses it; stop that, or give another file."
    return f"{reason}. Give a file of the engine's own, in a folder that it may write to."


def may_pass(error: BaseException) -> bool:
    """Whether an error is the machine's, such as a full disk or a locked file: later the same may succeed."""
    of_a_statement = (sqlite3.DataError, sqlite3.IntegrityError, sqlite3.ProgrammingError)
    return isinstance(error, sqlite3.Error | OSError | MemoryError) and not isinstance(error, of_a_statement)


class Store:
    """The tables. Methods that write belong inside `transaction()`."""

    def __init__(self, path: Path | None) -> None:
        self.db = _memory() if path is None else _file(path)

    def close(self) -> None:
        """Let go of the file."""
        self.db.close()

    @contextmanager
    def transaction(self) -> Generator[None]:
        """All or nothing."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.db.execute("COMMIT")
        except BaseException:
            if self.db.in_transaction:  # SQLite itself has undone it when its disk is full
                self.db.execute("ROLLBACK")
            raise

    def secret(self, name: str) -> bytes:
        """A key that was made with the tables."""
        return self.db.execute(sql.READ_SECRET, (name,)).fetchone()[0]

    def put_event(self, event: Event) -> None:
        """Keep an event."""
        row = (
            event.internal_id,
            event.id,
            event.name,
            orjson.dumps(event.to_json()),
            event.received_at,
        )
        self.db.execute(sql.PUT_EVENT, row)

    def put_copy(self, event: Event) -> bool:
        """Count an event that is kept already once more; False when it is not."""
        return self.db.execute(sql.ADD_COPY, (event.internal_id,)).rowcount > 0

    def seen_event(self, event: Event, *, since: int) -> bool:
        """Whether an event with the sender's id was taken in before."""
        return self.db.execute(sql.SEEN_EVENT, (event.id, since, event.internal_id)).fetchone() is not None

    def event(self, internal_id: str) -> dict[str, Any] | None:
        """One event as the API shows it."""
        row = self.db.execute(sql.READ_EVENT, (internal_id,)).fetchone()
        return event_json(row) if row else None

    def run(self, run_id: str) -> RunRow | None:
        """One run."""
        row = self.db.execute(sql.READ_RUN, (run_id,)).fetchone()
        return RunRow(*row) if row else None

    def runs_of_event(self, event_id: str) -> list[RunRow]:
        """The runs an event began."""
        return [RunRow(*row) for row in self.db.execute(sql.RUNS_OF_EVENT, (event_id,))]

    def put_run(
        self,
        run_id: str,
        function: Function,
        event_id: str,
        events: Sequence[Mapping[str, Any]],
        *,
        now: int,
        gates: Sequence[tuple[str, int]] = (),
        throttle: Throttle | None = None,
        singleton: str | None = None,
        url: str | None = None,
    ) -> None:
        """Add a run; `events` has more than one entry for a batch only."""
        several = orjson.dumps(events) if len(events) > 1 else None
        shut = orjson.dumps(gates) if gates else None
        slow = orjson.dumps(throttle) if throttle else None
        facts = (run_id, function.slug, function.id, event_id, orjson.dumps(events[0]), now)
        self.db.execute(sql.PUT_RUN, (*facts, several, shut, slow, singleton, url))

    def singleton_runs(self, slug: str, key: str) -> list[RunRow]:
        """A function's open runs with a singleton key."""
        return [RunRow(*row) for row in self.db.execute(sql.SINGLETON_RUNS, (slug, key)).fetchall()]

    def open_runs(self, slug: str) -> list[RunRow]:
        """A function's runs that have not ended."""
        return [RunRow(*row) for row in self.db.execute(sql.OPEN_RUNS, (slug,)).fetchall()]

    def steps_after(self, run_id: str, number: int) -> list[StepRow]:
        """What a run's steps came to that ended after the one with that number, in order of their ends."""
        return [StepRow(*row) for row in self.db.execute(sql.STEPS_AFTER, (run_id, number))]

    def steps(self, run_id: str) -> dict[str, Any]:
        """What a run's steps came to, in order of their ends."""
        return {id: orjson.loads(body) for id, body in self.db.execute(sql.READ_STEPS, (run_id,))}

    def defers(self, run_id: str) -> dict[str, Any]:
        """What a run has asked for after its end, as SDKs are told of it."""
        rows = self.db.execute(sql.READ_DEFERS, (run_id,)).fetchall()
        return {step_id: {"abortable": bool(waits)} for step_id, waits in rows}

    def is_open(self, run_id: str) -> bool:
        """Whether a run is there and has not ended."""
        return self.db.execute(sql.IS_OPEN, (run_id,)).fetchone() is not None

    def has_pending(self, run_id: str) -> bool:
        """Whether a run has planned, sleeping or waiting steps."""
        return self.db.execute(sql.HAS_PENDING, (run_id,)).fetchone() is not None

    def attempt(self, job_id: int) -> int:
        """How often a job has failed, as of now."""
        row = self.db.execute(sql.READ_ATTEMPT, (job_id,)).fetchone()
        return row[0] if row else 0

    def state_size(self, run_id: str) -> StateSize:
        """How large the outputs of a run's steps are."""
        return StateSize(*self.db.execute(sql.STATE_SIZE, (run_id,)).fetchone())

    def pending_bytes(self, run_id: str, step_id: str) -> int:
        """How large that is which was noted with a step that is to end later."""
        row = self.db.execute(sql.PENDING_BYTES, (run_id, step_id)).fetchone()
        return row[0] or 0 if row else 0

    def pending_detail(self, run_id: str, step_id: str) -> Any:
        """What was noted (as JSON) with a step that is to end later; None when it is no longer."""
        row = self.db.execute(sql.PENDING_DETAIL, (run_id, step_id)).fetchone()
        return orjson.loads(row[0]) if row else None

    def take_due(self, now: int, limit: int) -> list[Job]:
        """Lease due jobs. A new process's store releases what an old one held."""
        with self.transaction():
            jobs = self._lease(sql.READY_JOBS, now, limit)
            if len(jobs) < limit and ((due := self.next_due()) is not None and due <= now):
                jobs += self._lease(sql.UNURGENT_JOBS, now, limit - len(jobs))
        return jobs

    def _lease(self, which: str, now: int, limit: int) -> list[Job]:
        jobs = [Job(*row) for row in self.db.execute(which, (now, limit)).fetchall()]
        self.db.executemany(sql.TAKE_JOB, [(job.id,) for job in jobs])
        return jobs

    def next_due(self) -> int | None:
        """When the next job is due."""
        return self.db.execute(sql.NEXT_DUE).fetchone()[0]

    def next_certain(self) -> int | None:
        """When the next job is due that does not stand in for what may still come, as a timeout does."""
        return self.db.execute(sql.NEXT_CERTAIN).fetchone()[0]

    def enqueue(self, run_id: str, target: str, kind: str, due: int) -> None:
        """Add a job; the same one that is being done is done again afterwards."""
        self.db.execute(sql.PUT_JOB, (run_id, target, kind, due, due))

    def taken_again(self, job: Job, now: int) -> Job | None:
        """The job taken anew, if it was asked for again meanwhile."""
        row = self.db.execute(sql.RETAKE_JOB, (now, job.id)).fetchone()
        return replace(job, attempt=0, generation=row[0]) if row else None

    def done(self, job: Job, now: int) -> None:
        """The job is done, unless it was asked for again meanwhile."""
        if self.db.execute(sql.REPEAT_JOB, (now, job.id)).rowcount == 0:
            self.db.execute(sql.DELETE_JOB, (job.id,))


def _memory() -> sqlite3.Connection:
    db = sqlite3.connect(":memory:", isolation_level=None)
    sql.migrate(db)
    return db


def _file(path: Path) -> sqlite3.Connection:
    """Held by this process alone, since an engine takes what is leased in it for a dead one's."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not os.access(path, os.W_OK, effective_ids=_AS_EFFECTIVE):
            raise PermissionError("it may only be read")  # SQLite would leave such files beside it
        db = sqlite3.connect(path, isolation_level=None, timeout=OPEN_SECONDS)
    except (sqlite3.DatabaseError, OSError) as err:
        raise DatabaseError(path, err) from err
    was_read = False
    try:
        sql.check_ownership(db)
        was_read = True
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        sql.migrate(db)
        db.execute(sql.RELEASE_JOBS)
    except (sqlite3.DatabaseError, sql.UnfitDatabaseError) as err:
        db.close()
        raise DatabaseError(path, err, was_read=was_read) from err
    return db


def event_json(row: Sequence[Any]) -> dict[str, Any]:
    """An event as the API shows it: a user's data only when there is some."""
    internal_id, body, received_at = row
    event = orjson.loads(body)
    if not event.get("user"):
        event.pop("user", None)
    empty = "00000000-0000-0000-0000-000000000000"
    known = {"internal_id": internal_id, "account_id": empty, "environment_id": empty}
    return {**known, "source": "", "source_id": None, "received_at": iso(received_at), **event}
