"""What flowctl needs of a database: one protocol, each verb one transaction.

Implemented by `storage.sql` for SQLite and PostgreSQL, and by `storage.memory`; called by `run`,
`runners` and `app`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, TypedDict, Unpack

from flowctl.events import WorkflowEvent
from flowctl.snapshot import RunStatus, Snapshot, StepResult
from flowctl.stored_run import StoredRun, StoredRuns


@dataclass(frozen=True, slots=True)
class Lease:
    """Who executes a run in its own process, and until when (epoch ms) nobody else may."""

    owner: str
    until: int


@dataclass(frozen=True, slots=True)
class RecordWrite:
    """One step record; `op` and `memo` say which durable operation made it, once it is finished.

    `late` has the memos of operations that had made it before, by name, which nobody else remembers yet.
    """

    record: StepResult
    op: str | None = None
    memo: Mapping[str, Any] | None = None
    late: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])


@dataclass(frozen=True, slots=True)
class Inside:
    """What a nested workflow that runs as a function of its own has changed so far, beside records.

    It is kept as the memo of its record, in place of the run's header, which its parent writes; the run's
    `status`, running or waiting, is that of the last commit of either.
    """

    key: str
    op: str
    memo: Mapping[str, Any]
    status: RunStatus = "running"


@dataclass(frozen=True, slots=True)
class Commit:
    """What one durable operation changes: records, the run's header and new events.

    None under a key forgets the records whose keys begin with it. Unless `is_shown`, what is shown of the run
    stays as it was. With `execution`, that one must have taken the run, or the part of it, up last.
    """

    workflow_id: str
    run_id: str
    leg: int
    now: int
    snapshot: Snapshot | Inside
    records: Mapping[str, RecordWrite | None] = field(default_factory=dict[str, RecordWrite | None])
    events: Sequence[tuple[str, WorkflowEvent]] = ()
    is_shown: bool = True
    execution: str | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """The start of a leg: only one caller may move the run from `expected` to running.

    With `leg`, that one must still be the run's newest, and with `execution`, that one must have taken the
    run up last. `records` replace those that are stored. `dispatch` is what has to be sent for the leg to
    begin; it is stored with the claim until it was sent. Unless `is_shown`, what is shown of the run stays as
    it was.
    """

    workflow_id: str
    run_id: str
    expected: frozenset[RunStatus]
    now: int
    snapshot: Snapshot
    engine: str
    lease: Lease | None = None
    dispatch: Mapping[str, Any] | None = None
    records: Mapping[str, StepResult] | None = None
    leg: int | None = None
    is_shown: bool = True
    execution: str | None = None


@dataclass(frozen=True, slots=True)
class Dispatch:
    """A leg that was claimed and whose event was not, as far as is known, accepted by the engine yet."""

    workflow_id: str
    run_id: str
    leg: int
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RunPointer:
    """Names a run: who holds its lease, and which leg that is for."""

    workflow_id: str
    run_id: str
    lease_owner: str | None = None
    leg: int = 0


@dataclass(frozen=True, slots=True)
class Turn:
    """A request of the engine that wants to act for a function run of which several may be under way."""

    workflow_id: str
    run_id: str
    engine_run: str
    request: str


@dataclass(frozen=True, slots=True)
class Acting:
    """Which request acts, since when (epoch ms), and how many turns were passed on before it."""

    request: str
    since: int
    passed: int


@dataclass(frozen=True, slots=True)
class TakeUp:
    """A request of the engine that executes a leg from now on, or, under a record's `key`, a part of it.

    `execution` tells it from every other request, also from one that the engine has given up.
    """

    workflow_id: str
    run_id: str
    leg: int
    execution: str
    key: str | None = None


class RunFilters(TypedDict, total=False):
    """Which runs are meant; dates are of their creation, and both are inclusive."""

    status: RunStatus | None
    resource_id: str | None
    from_date: datetime | None
    to_date: datetime | None


class Storage(Protocol):
    """A durable home for runs. Every method is one transaction; all are safe to call from several tasks,
    event loops, threads and processes.

    What a run goes on from is always there (`get_run`). What is shown of it (`get_shown_run`,
    `load_snapshot`, lists and counts) is the same, or, after a write that was not to be shown, the run as it
    stood before, or nothing when it was never shown."""

    async def open(self) -> None:
        """Create or upgrade the tables. May be called again."""
        ...

    async def close(self) -> None:
        """Let go of files and connections."""
        ...

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
        """Store a pending run; when there is one under that id already, answer that one unchanged."""
        ...

    async def claim(self, claim: Claim) -> int | None:
        """Compare-and-set the status to running and begin the next leg.

        Answers the leg's number, or None when another was first.
        """
        ...

    async def commit(self, commit: Commit) -> bool:
        """Apply one operation's changes; False, with nothing written, when the run has ended or moved on, or
        another execution has taken it up.

        Events whose key is stored already are left out, so an operation may be committed twice.
        """
        ...

    async def finished_memo(
        self, workflow_id: str, run_id: str, *, leg: int | None, key: str, op: str
    ) -> Mapping[str, Any] | None:
        """What that operation of that leg (None: of any) came to, if that is what was committed last of the
        record, or was late then."""
        ...

    async def cancel(self, workflow_id: str, run_id: str, *, event: WorkflowEvent, now: int) -> bool:
        """Set the run canceled unless it has ended, and show that if it was shown; whether it did."""
        ...

    async def save_snapshot(
        self, workflow_id: str, run_id: str, snapshot: Mapping[str, Any] | Snapshot
    ) -> None:
        """Replace everything stored of a run by this snapshot, and show it."""
        ...

    async def load_snapshot(self, workflow_id: str, run_id: str) -> dict[str, Any] | None:
        """The snapshot that is shown, in its JSON form, or None."""
        ...

    async def get_run(self, workflow_id: str, run_id: str) -> StoredRun | None:
        """One run as it stands, with all its records, or None."""
        ...

    async def get_shown_run(self, workflow_id: str, run_id: str) -> StoredRun | None:
        """One run as it is shown, with all its records, or None."""
        ...

    async def get_status(self, workflow_id: str, run_id: str) -> tuple[RunStatus, int] | None:
        """A run's status and the number of its newest leg, or None."""
        ...

    async def get_earlier_run(self, workflow_id: str, run_id: str) -> StoredRun | None:
        """One run with the header and the records it had when its newest leg began, or None.

        Its status is that of now. Records below one that succeeded are left out: a leg passes over them, and
        there may be very many.
        """
        ...

    async def list_runs(
        self,
        workflow_id: str | None = None,
        *,
        page: int | None = None,
        per_page: int | None = None,
        **filters: Unpack[RunFilters],
    ) -> StoredRuns:
        """Runs as they are shown, newest first.

        `page` counts from 0 and needs `per_page`; `total` counts all pages.
        """
        ...

    async def list_runs_json(
        self,
        workflow_id: str,
        *,
        limit: int | None = None,
        offset: int = 0,
        **filters: Unpack[RunFilters],
    ) -> tuple[list[dict[str, Any]], int]:
        """Runs as `StoredRun.to_json` shows them, and how many there are in all; parts may be
        `orjson.Fragment`s."""
        ...

    async def count_runs(
        self, workflow_ids: Sequence[str], statuses: Sequence[RunStatus]
    ) -> dict[tuple[str, RunStatus], int]:
        """How many runs of these workflows have these statuses; where there are none, nothing is said."""
        ...

    async def delete_run(self, workflow_id: str, run_id: str) -> bool:
        """Forget a run and all that belongs to it; whether there was one."""
        ...

    async def prune(self, *, before: int, limit: int = 200) -> int:
        """Forget up to `limit` runs that ended before a time (epoch ms), oldest first; how many it were."""
        ...

    async def read_events(
        self, workflow_id: str, run_id: str, *, after: int = 0
    ) -> list[tuple[int, WorkflowEvent]]:
        """The run's events with their sequence numbers, those after a number only."""
        ...

    async def undelivered(self) -> list[Dispatch]:
        """Legs whose event has still to be sent, oldest first."""
        ...

    async def delivered(self, dispatch: Dispatch) -> None:
        """Forget the event of a leg: the engine has it."""
        ...

    async def take_up(self, taken: TakeUp) -> None:
        """Refuse from now on what other executions commit to a leg, or to a part of it; those of no name
        may. Without effect when the run has moved on."""
        ...

    async def take_turn(self, turn: Turn, *, now: int) -> Acting:
        """Act, unless another request does; which one does now. May be called again by the one that acts."""
        ...

    async def pass_turn(self, turn: Turn, *, passed: int) -> None:
        """Act no longer; without effect by a request that does not."""
        ...

    async def renew_leases(self, owner: str, *, until: int) -> None:
        """Move the end of all leases of an owner."""
        ...

    async def release_lease(self, workflow_id: str, run_id: str, *, owner: str) -> None:
        """Give up the lease of one run, if it is this owner's: another process may take the run over."""
        ...

    async def active_local_runs(self, now: int) -> list[RunPointer]:
        """Runs of the local engine that are running or waiting, with who holds (or last held) their lease;
        `lease_owner` is None for those whose lease has lapsed."""
        ...
