"""A run as its events tell it: a tree of steps with their state. No printing, no clock."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

RUNNING = frozenset({"running", "waiting"})
ENDED = frozenset({"success", "failed", "suspended", "canceled", "paused", "skipped"})


@dataclass(slots=True)
class StepView:
    """One step: what is known of it. Times are epoch milliseconds."""

    id: str
    depth: int = 0
    label: str = ""
    status: str = "pending"
    started_at: int | None = None
    ended_at: int | None = None
    until: int | None = None
    iteration: int | None = None
    retries: int = 0
    done: int = 0
    total: int = 0
    shown: Any = None
    is_sleep: bool = False
    is_nested: bool = False

    @property
    def took_ms(self) -> int | None:
        """How long it ran, when it has ended."""
        if self.started_at is None or self.ended_at is None:
            return None
        return max(0, self.ended_at - self.started_at)


@dataclass(slots=True)
class RunView:
    """A run: its steps in the graph's order, and where it stands."""

    workflow_id: str
    run_id: str
    steps: dict[str, StepView] = field(default_factory=dict[str, StepView])
    status: str = "running"

    @classmethod
    def of(cls, workflow_id: str, run_id: str, graph: Sequence[Mapping[str, Any]]) -> RunView:
        """A run of a workflow with that step graph, before its first event."""
        steps = {step.id: step for step in _steps(graph)}
        return cls(workflow_id, run_id, steps)

    @property
    def running(self) -> list[StepView]:
        """The innermost steps that run or wait."""
        active = [step for step in self.steps.values() if step.status in RUNNING]
        outer = {step.id.rpartition(".")[0] for step in active}
        return [step for step in active if step.id not in outer]

    def take(self, event: Mapping[str, Any]) -> StepView | None:
        """Take an event in; the step it is about, if any."""
        sent: Any = event.get("payload")  # a custom event's may be anything
        payload: Mapping[str, Any] = sent if isinstance(sent, dict) else {}
        match event["type"]:
            case "workflow-start":
                self.status = "running"
            case "workflow-finish":
                self.status = str(payload.get("workflowStatus", "success"))
            case "workflow-canceled":
                self.status = "canceled"
            case "workflow-paused":
                self.status = "paused"
            case _ if payload.get("stepName"):
                return self._take(str(event["type"]), payload)
            case _:
                pass
        return None

    def note(self, run: Mapping[str, Any]) -> None:
        """Take in what is stored of steps that run: how often they failed so far, and why the last time."""
        for id, record in (run.get("steps") or {}).items():
            step = self.steps.get(id)
            if step is None or step.status != "running":
                continue
            _count(step, record)
            if record.get("status") == "failed":
                step.retries += 1
                step.shown = _told(record.get("error") or {})

    def settle(self, run: Mapping[str, Any]) -> None:
        """Make it what is stored, where events did not come."""
        self.status = str(run["status"])
        for id, record in (run.get("steps") or {}).items():
            step = self._step(id)
            if step.status not in ENDED:
                _began(step, record)
                _ended(step, record)
            if self.status in ENDED and step.status in RUNNING:
                step.status = self.status  # a nested workflow around a suspended step is stored as running

    def _take(self, kind: str, payload: Mapping[str, Any]) -> StepView:
        step = self._step(str(payload.get("id") or payload["stepName"]))
        match kind:
            case "workflow-step-start":
                _began(step, payload)
            case "workflow-step-waiting":
                _began(step, payload)
                step.status, step.until = "waiting", (payload.get("metadata") or {}).get("until")
            case "workflow-step-output":
                step.shown = payload.get("output")
            case "workflow-step-progress":
                step.done, step.total = int(payload["completedCount"]), int(payload["totalCount"])
            case "workflow-step-result" | "workflow-step-suspended":
                _ended(step, payload)
            case _:
                pass
        return step

    def _step(self, id: str) -> StepView:
        if id not in self.steps:
            outer, _, label = id.rpartition(".")
            depth = self.steps[outer].depth + 1 if outer in self.steps else 0
            self.steps[id] = StepView(id, depth if outer else 0, label)
        return self.steps[id]


def _began(step: StepView, payload: Mapping[str, Any]) -> None:
    step.status, step.ended_at, step.until = "running", None, None
    step.started_at = payload.get("resumedAt") or payload.get("startedAt")
    _count(step, payload)
    step.shown = None


def _ended(step: StepView, payload: Mapping[str, Any]) -> None:
    step.status = str(payload.get("status", "success"))
    step.started_at = payload.get("resumedAt") or payload.get("startedAt") or step.started_at
    step.ended_at = payload.get("endedAt") or payload.get("suspendedAt")
    _count(step, payload)
    if step.status == "failed":
        step.shown = _told(payload.get("error") or {})
    elif step.status == "suspended":
        step.shown = None if step.is_nested else _without_meta(payload.get("suspendPayload"))
    else:
        step.shown = None if step.is_sleep else payload.get("output")


def _told(error: Mapping[str, Any]) -> str:
    return f"{error.get('name', 'Error')}: {error.get('message', '')}"


def _count(step: StepView, payload: Mapping[str, Any]) -> None:
    metadata: Mapping[str, Any] = payload.get("metadata") or {}
    step.iteration, step.retries = metadata.get("iterationCount"), metadata.get("retryCount", 0)


def _without_meta(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: inner for key, inner in value.items() if key != "__workflow_meta"}


def _steps(graph: Sequence[Mapping[str, Any]], prefix: str = "", depth: int = 0) -> Iterator[StepView]:
    for node in graph:
        for leaf in node.get("steps") or [node]:
            step = innermost(leaf)
            id = str(step.get("id") or "")
            if id:
                inner = step.get("serializedStepFlow") or ()
                is_sleep = str(leaf.get("type")).startswith("sleep")
                yield StepView(f"{prefix}{id}", depth, id, is_sleep=is_sleep, is_nested=bool(inner))
                yield from _steps(inner, f"{prefix}{id}.", depth + 1)


def innermost(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """The step of a graph's node: nodes of one step wrap it."""
    return innermost(node["step"]) if isinstance(node.get("step"), Mapping) else node
