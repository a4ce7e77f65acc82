"""The events of a run, made from its records: what streams, watchers and the Studio get."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flowctl.snapshot import RunError, StepResult

FINISH = "workflow-finish"
CANCELED = "workflow-canceled"
_NO_USAGE = dict.fromkeys(
    (
        "inputTokens",
        "outputTokens",
        "totalTokens",
        "cachedInputTokens",
        "cacheCreationInputTokens",
        "reasoningTokens",
    ),
    0,
)


@dataclass(frozen=True, slots=True)
class WorkflowEvent:
    """One thing that happened in a run: a `type` and a `payload` with camelCase keys.

    Types: `workflow-start`, `workflow-step-start`, `workflow-step-output` (`writer.write`),
    `workflow-step-progress` (an item of a foreach), `workflow-step-waiting` (a sleep),
    `workflow-step-suspended`, `workflow-step-result`, `workflow-step-finish` (to watchers only),
    `workflow-paused`, `workflow-canceled`, `workflow-finish`. Those of steps have `id`, dotted for nested
    steps, and the record's fields. A `custom` event has the type and the keys that `writer.custom` was given.
    """

    type: str
    payload: Mapping[str, Any]
    run_id: str
    custom: bool = False

    def to_json(self) -> dict[str, Any]:
        """The event as streams carry it; a custom one keeps its own shape."""
        if self.custom:
            return {**self.payload, "type": self.type, "runId": self.run_id, "from": "USER"}
        origin = "USER" if self.type == "workflow-step-output" else "WORKFLOW"
        return {"type": self.type, "runId": self.run_id, "from": origin, "payload": dict(self.payload)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> WorkflowEvent:
        """The event of its JSON form."""
        if "payload" in data and data.get("from") in {"WORKFLOW", "USER"}:
            return cls(data["type"], data["payload"], data["runId"])
        own = {key: value for key, value in data.items() if key not in {"runId", "from"}}
        return cls(data["type"], own, data["runId"], custom=True)


def run_started(run_id: str, workflow_id: str) -> WorkflowEvent:
    """A leg of the run begins."""
    return WorkflowEvent("workflow-start", {"workflowId": workflow_id}, run_id)


def run_finished(run_id: str, *, status: str, result: Any, error: RunError | None) -> WorkflowEvent:
    """A leg of the run has ended, with this status."""
    shown = error.to_json() if error else None
    payload: dict[str, Any] = {
        "workflowStatus": status,
        "metadata": {"error": shown, "errorMessage": shown["message"]} if shown else {},
        "output": {"usage": _NO_USAGE},
    }
    if status == "success":
        payload["finalWorkflowResult"] = result
    return WorkflowEvent(FINISH, payload, run_id)


def run_canceled(run_id: str) -> WorkflowEvent:
    """The run was canceled."""
    return WorkflowEvent(CANCELED, {}, run_id)


def run_paused(run_id: str) -> WorkflowEvent:
    """The run stopped after one step, as asked."""
    return WorkflowEvent("workflow-paused", {}, run_id)


def step_started(run_id: str, key: str, record: StepResult, call_id: str | None = None) -> WorkflowEvent:
    """A step's code is about to run (`call_id` tells this call from others), or a block of steps begins."""
    shown = record.to_json()
    shown.pop("output", None)
    shown.pop("suspendPayload", None)
    return WorkflowEvent("workflow-step-start", _named(key, shown, call_id), run_id)


def step_waiting(run_id: str, key: str, record: StepResult) -> WorkflowEvent:
    """A sleep has begun."""
    return WorkflowEvent("workflow-step-waiting", _named(key, record.to_json()), run_id)


def step_ended(run_id: str, key: str, record: StepResult, call_id: str | None = None) -> list[WorkflowEvent]:
    """A step succeeded, failed, or was suspended."""
    payload = _named(key, record.to_json(), call_id)
    if record.status == "suspended":
        return [WorkflowEvent("workflow-step-suspended", payload, run_id)]
    finish = _named(key, {"metadata": {}}, call_id)
    return [
        WorkflowEvent("workflow-step-result", payload, run_id),
        WorkflowEvent("workflow-step-finish", finish, run_id),
    ]


def step_progressed(
    run_id: str, key: str, *, completed: int, total: int, index: int, status: str, output: Any
) -> WorkflowEvent:
    """One item of a foreach has ended."""
    payload = {
        "id": key,
        "completedCount": completed,
        "totalCount": total,
        "currentIndex": index,
        "iterationStatus": status,
    }
    if status == "success":
        payload["iterationOutput"] = output
    return WorkflowEvent("workflow-step-progress", _named(key, payload), run_id)


def step_wrote(run_id: str, key: str, output: Any) -> WorkflowEvent:
    """A step's code wrote to its writer."""
    payload = {"output": output, "runId": run_id, "stepName": event_id(key)}
    return WorkflowEvent("workflow-step-output", payload, run_id)


def _named(key: str, payload: Mapping[str, Any], call_id: str | None = None) -> dict[str, Any]:
    shown = event_id(key)
    if call_id:
        return {"stepName": shown, "id": shown, "stepCallId": call_id, **payload}
    return {"stepName": shown, "id": shown, **payload}


def event_id(key: str) -> str:
    """A record key (`outer/inner`) as events name it (`outer.inner`)."""
    return key.replace("/", ".")
