"""The past that a time travel needs: records of the steps before the target, taken or given. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from flowctl.errors import StepNotFoundError, TimeTravelError
from flowctl.execution.plans import Leg
from flowctl.graph import ConditionalNode, ForeachNode, Node, ParallelNode, StepNode, ids_of, steps_of
from flowctl.schema import to_json
from flowctl.snapshot import Snapshot, StepResult
from flowctl.step import Step

if TYPE_CHECKING:
    from flowctl.workflow import Workflow


Records = Mapping[str, Mapping[str, Any]]
"""Records of steps as callers give them: plain data by step id."""


@dataclass(frozen=True, slots=True)
class Travel:
    """Where to, and what is to be different there.

    `context` has records by (dotted) step id, `nested_context` those of nested workflows by workflow and
    step id.
    """

    path: Sequence[str] = ()
    now: int = 0
    input_data: Any = None
    resume_data: Any = None
    context: Records = field(default_factory=dict[str, Mapping[str, Any]])
    nested_context: Mapping[str, Records] = field(default_factory=dict[str, Records])
    initial_state: Mapping[str, Any] | None = None
    per_step: bool = False

    def given(self, key: str) -> StepResult | None:
        """The record that the caller gave for a key."""
        scope, _, id = key.rpartition("/")
        nested = self.nested_context.get(scope.rpartition("/")[2], {})
        data = self.context.get(key.replace("/", "."), nested.get(id))
        if data is None:
            return None
        times = {"startedAt": self.now, "endedAt": self.now}
        return StepResult.from_json({"status": "success", **times, **to_json(data)})


def plan_time_travel(workflow: Workflow[Any, Any], snapshot: Snapshot, travel: Travel) -> Leg:
    """The leg that begins at the target; raises TimeTravelError and StepNotFoundError."""
    past = _Past(travel, snapshot, dict[str, StepResult](), dict[str, Any]())
    start = past.rebuild(workflow, "", list(travel.path), snapshot.input)
    kept = [id for id in snapshot.step_execution_path if id in past.records]
    begun = replace(
        snapshot,
        status="running",
        input=start,
        records=past.records,
        positions=past.positions,
        state=dict(snapshot.state if travel.initial_state is None else travel.initial_state),
        step_execution_path=kept,
        resume_labels={},
        result=None,
        error=None,
    )
    targets = (".".join(travel.path),) if travel.resume_data is not None else ()
    return Leg(
        "time-travel", begun, targets=targets, resume_data=travel.resume_data, per_step=travel.per_step
    )


@dataclass(slots=True)
class _Past:
    """Records and positions, rebuilt scope by scope."""

    travel: Travel
    snapshot: Snapshot
    records: dict[str, StepResult]
    positions: dict[str, Any]

    def rebuild(self, workflow: Workflow[Any, Any], prefix: str, path: list[str], data: Any) -> Any:
        """One workflow up to its target; answers the input it begins with."""
        index = self._target_index(workflow, path)
        last = len(path) == 1
        if index == 0 and last and self.travel.input_data is not None:
            data = self.travel.input_data
        scope_input = data
        for at, node in enumerate(workflow.nodes[:index]):
            override = self.travel.input_data if last and at == index - 1 else None
            data = self._passed(node, prefix, data, override)
        self.positions[prefix] = index
        self._target(workflow.nodes[index], prefix, path, data, index)
        return scope_input

    def _target_index(self, workflow: Workflow[Any, Any], path: list[str]) -> int:
        for index, node in enumerate(workflow.nodes):
            if path[0] in ids_of(node):
                return index
        raise self._unknown(workflow, path[0])

    def _unknown(self, workflow: Workflow[Any, Any], id: str) -> StepNotFoundError:
        """The target is no step, or, in a run that has records, is one no longer."""
        has = f"Workflow {workflow.id!r} has: {', '.join(workflow.steps)}."
        if self.snapshot.records:
            return StepNotFoundError(
                f"Cannot time travel to step {id!r}: "
                f"the step does not exist in the current execution graph. {has}"
            )
        return StepNotFoundError(
            f"Time travel target step not found in execution graph: {id!r}. Verify the step id/path. {has}"
        )

    def _passed(self, node: Node, prefix: str, data: Any, override: Any) -> Any:
        """The records of a node before the target; answers what it gave."""
        outputs: dict[str, Any] = {}
        for id in ids_of(node):
            key = f"{prefix}{id}"
            stored = self.travel.given(key) or self.snapshot.records.get(key)
            if stored is None and override is None:
                continue
            record = stored or StepResult("success", started_at=self.travel.now, ended_at=self.travel.now)
            status = "skipped" if record.status == "skipped" else "success"
            payload = data if record.payload is None else record.payload
            output = record.output if override is None else override
            self.records[key] = replace(record, status=status, payload=payload, output=output, error=None)
            outputs[id] = output
            self._keep_inner(key)
        self._demand(node, prefix, outputs)
        if isinstance(node, ParallelNode | ConditionalNode):
            return outputs
        return next(iter(outputs.values()), data)

    def _demand(self, node: Node, prefix: str, outputs: Mapping[str, Any]) -> None:
        known = bool(self.snapshot.steps)
        enough = len(outputs) == len(ids_of(node)) if isinstance(node, ParallelNode) else bool(outputs)
        if known and not enough and isinstance(node, StepNode | ParallelNode | ConditionalNode):
            keys = [f"{prefix}{id}".replace("/", ".") for id in ids_of(node) if id not in outputs]
            missing = ", ".join(map(repr, keys))
            raise TimeTravelError(
                f"Cannot time travel to step {'.'.join(self.travel.path)!r}: "
                f"there is no record of {missing} before it. Give one with context=."
            )

    def _target(self, node: Node, prefix: str, path: list[str], data: Any, index: int) -> None:
        ids = ids_of(node)
        for id in ids:
            key = f"{prefix}{id}"
            if id != path[0]:
                self._sibling(node, key)
            elif len(path) > 1:
                inner = self._entered(node, id, path)
                self.records[key] = StepResult("running", payload=data, started_at=self.travel.now)
                self.rebuild(inner, f"{key}/", path[1:], data)
            elif self.travel.resume_data is not None:
                before = self.travel.given(key) or self.snapshot.records.get(key)
                waits = before or StepResult("suspended", payload=data, started_at=self.travel.now)
                self.records[key] = replace(
                    waits, status="suspended", payload=waits.payload if data is None else data
                )
                self._keep_inner(key)
            elif isinstance(node, ForeachNode):
                self._keep_items(key, data)
        if isinstance(node, ConditionalNode | ParallelNode):
            self.positions[f"{prefix}{index}?"] = [ids.index(path[0])]

    def _entered(self, node: Node, id: str, path: list[str]) -> Workflow[Any, Any]:
        """The nested workflow that holds the target."""
        if isinstance(node, ForeachNode):
            raise StepNotFoundError(
                f"Cannot time travel into the items of a foreach: {'.'.join(path)!r}. Travel to {id!r}; "
                "items that have succeeded do not run again when it failed or was suspended."
            )
        inner = {step.id: step for step in steps_of(node)}[id]
        if isinstance(inner, Step):
            raise StepNotFoundError(f"Step {id!r} has no steps inside: {'.'.join(path)!r}.")
        return inner

    def _keep_items(self, key: str, data: Any) -> None:
        """Of a foreach that had not succeeded, the items that had, where they still are what they were."""
        before = self.travel.given(key) or self.snapshot.records.get(key)
        if before is None or before.status == "success" or not isinstance(data, list):
            return
        items: list[Any] = data
        for index, item in enumerate(items):
            item_key = f"{key}[{index}]"
            record = self.snapshot.records.get(item_key)
            if record is not None and record.status == "success" and record.payload == item:
                self.records[item_key] = record
                self._keep_inner(item_key)

    def _sibling(self, node: Node, key: str) -> None:
        if isinstance(node, ConditionalNode):
            self.records[key] = StepResult("skipped", started_at=self.travel.now, ended_at=self.travel.now)
            return
        record = self.travel.given(key) or self.snapshot.records.get(key)
        if record is not None and record.status == "success":
            self.records[key] = record
            self._keep_inner(key)

    def _keep_inner(self, key: str) -> None:
        for other, record in self.snapshot.records.items():
            if other.startswith((f"{key}/", f"{key}[")):
                self.records[other] = record
