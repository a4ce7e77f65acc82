"""The state of one leg of a run: what earlier operations came to, merged in order.

Everything here is pure and may be replayed; `take` is the only way a finished operation changes it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import ChainMap, Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from flowctl import graph
from flowctl.context import AbortSignal, EngineInfo
from flowctl.events import WorkflowEvent
from flowctl.execution.callbacks import is_persisted
from flowctl.execution.changes import Changes
from flowctl.execution.held import Held
from flowctl.execution.ops import DurableOps, Journal, Memo
from flowctl.execution.outcome import Outcome
from flowctl.execution.paths import label_target
from flowctl.execution.plans import Leg
from flowctl.request_context import RequestContext
from flowctl.snapshot import ACTIVE, RunStatus, Snapshot, StepResult
from flowctl.storage.base import Inside, RecordWrite
from flowctl.telemetry import LegName

if TYPE_CHECKING:
    from flowctl.app import App
    from flowctl.workflow import Workflow


@dataclass(frozen=True, slots=True)
class Environment:
    """What surrounds a leg and is no part of its replayed state; `queued_at` is when its engine got it."""

    app: App | None
    engine: EngineInfo
    logger: logging.Logger
    abort_signal: AbortSignal
    resource_id: str | None
    queued_at: int


@dataclass(frozen=True, slots=True)
class Scope:
    """One workflow being walked: the run's own (`prefix` "") or a nested one (`prefix` "outer/").

    `op_prefix` begins its durable ids; unlike `prefix` it differs from one loop iteration to the next.
    `validates` is the outermost workflow's `validate_inputs`: nested ones do as it says.
    """

    workflow: Workflow[Any, Any]
    prefix: str
    op_prefix: str
    input: Any
    validates: bool = True

    def key(self, id: str) -> str:
        """The record key of a step of this scope."""
        return f"{self.prefix}{id}"


@dataclass(frozen=True, slots=True)
class Part:
    """A nested workflow of a run that is walked by a function of its own.

    `number` is the leg's; `around` has the keys and operations of parts that it lies in, outermost first;
    one that `continues` began in an earlier leg, and stands at `positions`.
    """

    workflow_id: str
    run_id: str
    number: int
    leg: Mapping[str, Any]
    key: str
    op: str
    around: tuple[tuple[str, str], ...] = ()
    continues: bool = False
    positions: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def inside(self) -> str:
        """The operation that stands for all of it in its parent."""
        return f"{self.op}.inside"

    @property
    def name(self) -> str:
        """What tells the run from all others: for its cancellation."""
        return f"{self.workflow_id}/{self.run_id}"

    def to_json(self) -> dict[str, Any]:
        """As an invocation carries it; `name` is there for the engine to match."""
        shown = {known.name: getattr(self, known.name) for known in fields(self)}
        return shown | {"name": self.name}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Part:
        """The part of its JSON form."""
        given: dict[str, Any] = {known.name: data[known.name] for known in fields(cls)}
        given["around"] = tuple((key, op) for key, op in data["around"])
        return cls(**given)


@dataclass
class Walk:
    """One leg of a run, or a part of one, as far as it has come."""

    leg: Leg
    ops: DurableOps
    journal: Journal
    env: Environment
    scope: Scope
    records: dict[str, StepResult] = field(default_factory=dict[str, StepResult])
    state: dict[str, Any] = field(default_factory=dict[str, Any])
    request_context: RequestContext = field(default_factory=RequestContext)
    positions: dict[str, Any] = field(default_factory=dict[str, Any])
    labels: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    execution_path: list[str] = field(default_factory=list[str])
    taken: set[str] = field(default_factory=set[str])
    fresh: set[str] = field(default_factory=set[str])
    items_done: Counter[str] = field(default_factory=Counter[str])
    progress: int = 0
    aborted: bool = False
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    held: Held = field(default_factory=Held)
    ended: dict[str, Outcome] = field(default_factory=dict[str, Outcome])
    canceled: bool = False
    changes: Changes = field(default_factory=Changes)
    part: Part | None = None
    kept: Memo = field(default_factory=dict[str, Any])
    gathers: int = 0

    @classmethod
    def of(
        cls,
        workflow: Workflow[Any, Any],
        leg: Leg,
        ops: DurableOps,
        journal: Journal,
        env: Environment,
        *,
        part: Part | None = None,
    ) -> Walk:
        """A leg at its beginning."""
        stored = leg.snapshot
        return cls(
            leg=leg,
            ops=ops,
            journal=journal,
            env=env,
            scope=Scope(workflow, "", "", stored.input, workflow.options.validate_inputs),
            records=dict(stored.records),
            items_done=_count_items(stored.records),
            state=dict(stored.state),
            request_context=RequestContext(stored.request_context),
            positions=dict(stored.positions),
            labels=dict(stored.resume_labels),
            execution_path=list(stored.step_execution_path),
            part=part,
        )

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.leg.snapshot.run_id

    @cached_property
    def name(self) -> LegName:
        """What tells this leg from all others."""
        return LegName(self.scope.workflow.id, self.run_id, self.journal.leg)

    def take(self, op: str, key: str, outcome: Outcome) -> None:
        """Merge a finished operation, once."""
        if op in self.taken:
            return
        self.taken.add(op)
        self.progress += 1
        if key.endswith("]") and outcome.record.status == "success":
            self.items_done[key.rpartition("[")[0]] += 1
        self.records[key] = outcome.record
        self.changes.apply(outcome, self.state, self.request_context)
        for label in outcome.labels:
            self.labels[label] = label_target(key)
        if outcome.aborted:
            self.aborted = self.canceled = True
        if outcome.bailed:
            self.positions[f"{key}^"] = True

    def taken_up(self, op: str, key: str, memo: Mapping[str, Any], payload: Any) -> Memo:
        """The memo of what an earlier request has ended, once the walk knows what it changed."""
        outcome = self.ended[op] = Outcome.from_memo(memo, payload)
        self.take(op, key, outcome)
        return dict(memo)

    def inside(self) -> Memo:
        """What this part of a run has changed so far, beside records, as its parent takes it."""
        prefix, before = f"{self.part.key}/" if self.part else "", self.leg.snapshot.resume_labels
        return {
            **self.changes.made(self.state, self.request_context),
            "positions": {key: at for key, at in self.positions.items() if key.startswith(prefix)},
            "labels": {name: at for name, at in self.labels.items() if before.get(name) != at},
        }

    def take_inside(self, key: str, memo: Memo) -> None:
        """Merge what a nested workflow, run as a function of its own, has changed."""
        self.progress += 1
        self.leave(f"{key}/")
        self.positions |= memo.get("positions", {})
        self.labels |= memo.get("labels", {})
        outcome = Outcome.from_memo({"record": {"status": "running"}, **memo}, None)
        self.changes.apply(outcome, self.state, self.request_context)

    def begun(self, key: str) -> None:
        """Note that a step or sleep in the run's own chain began; arms, loops and items are not listed."""
        if "/" not in key and key not in self.execution_path:
            self.execution_path.append(key)

    def tried(self, key: str, failed: Outcome | None, attempt: int) -> None:
        """Note a failed try after which another is due, or that none is."""
        if failed is None:
            self.positions.pop(f"{key}!", None)
        else:
            self.positions[f"{key}!"] = [attempt + 1, failed.record.ended_at or 0]

    def failed_tries(self, key: str) -> tuple[int, int]:
        """How many tries of a step an interrupted leg has made in vain, and when the last one ended."""
        tries, ended_at = self.positions.get(f"{key}!", (0, 0)) if self.leg.kind == "restart" else (0, 0)
        return tries, ended_at

    def under_way(self, key: str, record: StepResult | None = None) -> Outcome | None:
        """What an earlier leg began and this one continues: a nested workflow or a foreach."""
        record = record or self.records.get(key)
        if record is None or record.status != "running" or not self.leg.continues:
            return None
        return Outcome(record)

    def ended_before(self, key: str) -> Outcome | None:
        """What an earlier leg brought to its end just before this one continued it: a sleep or a foreach."""
        record = self.records.get(key)
        if record is None or self.leg.kind != "restart":
            return None
        is_over = record.status == "success" or (record.status == "failed" and self.leg.continues)
        return Outcome(record) if is_over else None

    def leave(self, prefix: str) -> None:
        """Forget where a nested workflow that has succeeded stood: long runs pass through very many."""
        self.positions = {key: at for key, at in self.positions.items() if not key.startswith(prefix)}

    def suspended_again(self) -> list[str]:
        """The keys of what has come to its suspension in this leg."""
        known = ((key, self.records.get(key)) for key in self.fresh)
        return sorted(key for key, record in known if record is not None and record.status == "suspended")

    def forget(self, prefix: str) -> None:
        """Drop what an earlier iteration left of a nested workflow, so that it begins anew."""
        self.records = {key: record for key, record in self.records.items() if not key.startswith(prefix)}
        self.positions = {key: at for key, at in self.positions.items() if not key.startswith(prefix)}
        self.fresh = {key for key in self.fresh if not key.startswith(prefix)}
        self.items_done = _count_items(self.records)

    def snapshot(self, status: RunStatus = "running") -> Snapshot:
        """The run's header as it stands (records are committed one by one)."""
        stored = self.leg.snapshot
        return Snapshot(
            stored.run_id,
            status,
            stored.input,
            state=dict(self.state),
            request_context=self.request_context.to_json(),
            active_paths=[self.positions.get("", 0)],
            suspended_paths={} if status in ACTIVE else self.suspended_paths(),
            resume_labels=dict(self.labels) if status in ACTIVE else self.open_labels(),
            step_execution_path=list(self.execution_path),
            positions=dict(self.positions),
            serialized_step_graph=stored.serialized_step_graph,
            result=stored.result,
            error=stored.error,
            timestamp=self.journal.now(),
            engine_run_id=stored.engine_run_id,
        )

    async def commit(
        self,
        *,
        status: RunStatus = "running",
        records: Mapping[str, RecordWrite | None] | None = None,
        events: Sequence[tuple[str, WorkflowEvent]] = (),
    ) -> None:
        """Store an operation's changes, and what is held; notices a cancellation.

        Commits of branches take turns: what a later one knows must not be overwritten by an earlier one.
        """
        async with self.turn:
            records, events = self.held.joined(records or {}, events)
            is_shown = self.is_persisted(status, records)
            header = self.snapshot(status) if self.part is None else self._inside_of(self.part, status)
            stored = await self.journal.commit(header, records=records, events=events, is_shown=is_shown)
        if not stored:
            self.canceled = True
            self.env.abort_signal.set()

    def is_persisted(self, status: RunStatus, writes: Mapping[str, RecordWrite | None] | None = None) -> bool:
        """Whether a state of the run, with what is being written, is to be shown."""
        if self.scope.workflow.options.should_persist_snapshot is None:
            return True
        new = {key: write.record for key, write in (writes or {}).items() if write is not None}
        return is_persisted(self.scope.workflow, status, ChainMap(new, self.records), self.env.logger)

    def _inside_of(self, part: Part, status: RunStatus) -> Inside:
        return Inside(part.key, part.inside, self.inside() | self.kept, status)

    async def gather(
        self,
        thunks: Sequence[Callable[[], Awaitable[Any]]],
        *,
        limit: int | None = None,
        stops: Callable[[Any], bool] | None = None,
    ) -> list[Any]:
        """Run branches at once: see DurableOps."""
        self.gathers += 1
        try:
            return await self.ops.gather(thunks, limit=limit, stops=stops)
        finally:
            self.gathers -= 1

    async def run(
        self,
        op: str,
        key: str,
        body: Callable[[], Awaitable[Memo]],
        *,
        repeatable: bool = False,
        carries: bool = False,
    ) -> Memo:
        """Run an operation on a record: see DurableOps.

        Those of branches are remembered at once: a request that repeats this one may leave a branch earlier.
        """
        kept = partial(self.finished, op, key)
        record = None if self.gathers else key
        return await self.ops.run(op, body, repeatable=repeatable, key=record, carries=carries, kept=kept)

    async def finished(self, op: str, key: str) -> Mapping[str, Any] | None:
        """The memo of an operation that an earlier request has ended: see Journal."""
        return await self.journal.finished(op, key, alone=not self.gathers)

    async def let_others_begin(self) -> None:
        """Branches begin before any of them ends, also where their steps never wait."""
        if self.gathers:
            await asyncio.sleep(0)

    def hold(self, records: Mapping[str, RecordWrite], events: Sequence[tuple[str, WorkflowEvent]]) -> None:
        """Store these with the next commit, in some milliseconds at the latest."""
        self.held.add(records, events, self.commit)

    def output_of(self, scope: Scope, id: str) -> Any:
        """The output of a step that succeeded, or None."""
        record = self.records.get(scope.key(id))
        return record.output if record is not None and record.status == "success" else None

    def open_labels(self) -> dict[str, dict[str, Any]]:
        """The resume labels of what is suspended still."""
        waiting = (key for key, record in self.records.items() if record.status == "suspended")
        targets = {tuple(label_target(key).values()) for key in waiting}
        return {label: at for label, at in self.labels.items() if tuple(at.values()) in targets}

    def suspended_paths(self) -> dict[str, list[int]]:
        """Where each suspended step of the run's own workflow stands in the graph."""
        paths: dict[str, list[int]] = {}
        for index, node in enumerate(self.scope.workflow.nodes):
            ids = graph.ids_of(node)
            for child, id in enumerate(ids):
                record = self.records.get(id)
                if record is not None and record.status == "suspended":
                    paths[id] = [index, child] if len(ids) > 1 else [index]
        return paths


def _count_items(records: Mapping[str, StepResult]) -> Counter[str]:
    """How many items of each foreach have succeeded."""
    done = (key for key, record in records.items() if key.endswith("]") and record.status == "success")
    return Counter(key.rpartition("[")[0] for key in done)
