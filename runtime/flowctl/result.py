"""What a call on a run answers: where the run stands.

Made by `stored.result_of`, and by the client of what the HTTP API answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic

from typing_extensions import TypeVar

from flowctl.snapshot import RunError, RunStatus, StepResult

Out = TypeVar("Out", default=Any)


@dataclass(frozen=True, slots=True)
class RunResult(Generic[Out]):
    """Where a run stands after a call, at its end or another stop.

    Attributes:
        status: "success", "failed", "suspended", "canceled" or "paused".
        result: after a success what the last step (or `bail`) gave, as the workflow's `output_schema` has it.
        raw_result: the same as JSON data.
        error: after a failure why, with traceback.
        input: the workflow's validated input, JSON data.
        steps: a record for each step that began, by id; nested workflows and foreach have one each.
        suspended: the path of each suspended step, outermost id first: what `resume(step=…)` takes.
        suspend_payload: what they ask, by the id of the outermost step.
        resume_labels: `{label: {"stepId": dotted id, "foreachIndex"?: index}}`.
        state: the run's state, JSON data.
        step_execution_path: the ids of steps and sleeps of the workflow's own chain, in the order they began.
    """

    status: RunStatus
    run_id: str
    workflow_id: str
    input: Any
    result: Out | None
    error: RunError | None
    steps: dict[str, StepResult]
    suspended: list[list[str]]
    suspend_payload: dict[str, Any]
    resume_labels: dict[str, dict[str, Any]]
    state: dict[str, Any]
    step_execution_path: list[str]
    raw_result: Any = None

    def to_json(self) -> dict[str, Any]:
        """The result as the HTTP API answers it."""
        shown: dict[str, Any] = {
            "status": self.status,
            "steps": {"input": self.input}
            | {key: record.to_json(stack=True) for key, record in self.steps.items()},
            "input": self.input,
            "stepExecutionPath": self.step_execution_path,
            "runId": self.run_id,
        }
        if self.status == "success":
            shown["result"] = self.raw_result
        if self.status == "failed" and self.error is not None:
            shown["error"] = self.error.to_json(stack=True)
        if self.status == "suspended":
            shown |= {
                "suspended": self.suspended,
                "suspendPayload": self.suspend_payload,
                "resumeLabels": self.resume_labels,
            }
        return shown

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, workflow_id: str) -> RunResult[Any]:
        """The result of its JSON form, which leaves the state out."""
        error, records = data.get("error"), dict(data.get("steps") or {})
        records.pop("input", None)
        return RunResult(
            status=data["status"],
            run_id=data["runId"],
            workflow_id=workflow_id,
            input=data.get("input"),
            result=data.get("result"),
            error=RunError.from_json(error) if error else None,
            steps={key: StepResult.from_json(record) for key, record in records.items()},
            suspended=list(data.get("suspended") or []),
            suspend_payload=dict(data.get("suspendPayload") or {}),
            resume_labels=dict(data.get("resumeLabels") or {}),
            state=dict(data.get("state") or {}),
            step_execution_path=list(data.get("stepExecutionPath") or []),
            raw_result=data.get("result"),
        )
