"""What is known of a run: errors as data, step records, and the snapshot made of them.

Python names are snake_case, the JSON of `to_json`/`from_json` is camelCase; times are epoch milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

StepStatus = Literal["running", "success", "failed", "suspended", "waiting", "paused", "skipped", "canceled"]
RunStatus = Literal["pending", "running", "waiting", "suspended", "success", "failed", "canceled", "paused"]

ACTIVE: frozenset[RunStatus] = frozenset({"running", "waiting"})
TERMINAL: frozenset[str] = frozenset({"success", "failed", "canceled"})


def camel(name: str) -> str:
    """`started_at` as `startedAt`."""
    head, *tail = name.split("_")
    return head + "".join(part.title() for part in tail)


@dataclass(frozen=True, slots=True)
class RunError:
    """An error as data: the class's name, the message, the cause, and the exception's own attributes.

    Attributes are read as they were set: `error.status_code`. `stack` is the traceback, in results alone:
    stored runs and events have None there. `str(error)` is `Name: message`.
    """

    name: str
    message: str
    stack: str | None = None
    cause: RunError | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __getattr__(self, name: str) -> Any:
        attributes: Mapping[str, Any] = object.__getattribute__(self, "attributes")
        if name in attributes:
            return attributes[name]
        raise AttributeError(f"the error {self.name} has no attribute {name!r}")

    def __str__(self) -> str:
        return f"{self.name}: {self.message}"

    def to_json(self, *, stack: bool = False) -> dict[str, Any]:
        """Without the stack, unless it is asked for; attributes keep the user's spelling."""
        shown = {**self.attributes, "name": self.name, "message": self.message}
        if stack and self.stack is not None:
            shown["stack"] = self.stack
        return shown | ({"cause": self.cause.to_json(stack=stack)} if self.cause else {})

    def without_stack(self) -> RunError:
        """The error as snapshots show it."""
        return replace(self, stack=None, cause=self.cause.without_stack() if self.cause else None)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RunError:
        """The error of its JSON form."""
        cause = data.get("cause")
        known = {"name", "message", "stack", "cause"}
        return cls(
            name=str(data.get("name", "Error")),
            message=str(data.get("message", "")),
            stack=data.get("stack"),
            cause=cls.from_json(cause) if isinstance(cause, Mapping) else None,
            attributes={key: value for key, value in data.items() if key not in known},
        )


@dataclass(frozen=True, slots=True)
class StepResult:
    """The record of one step of a run; of its last try, and in a loop of its last iteration.

    Attributes:
        status: "running", "waiting" (a sleep), "success", "failed", "suspended", "paused", "skipped" or
            "canceled".
        payload: the step's input, JSON data; of a foreach the whole list.
        output: what it returned, JSON data; of a foreach a list in the items' order.
        error: why it failed.
        suspend_payload, resume_payload: what it asked, and what it was given.
        started_at, ended_at, suspended_at, resumed_at: epoch milliseconds, or None where it did not happen.
        metadata: `{"iterationCount": n}` in a loop, `{"until": epoch ms}` of a sleep.
    """

    status: StepStatus
    payload: Any = None
    output: Any = None
    error: RunError | None = None
    suspend_payload: Any = None
    resume_payload: Any = None
    started_at: int | None = None
    ended_at: int | None = None
    suspended_at: int | None = None
    resumed_at: int | None = None
    metadata: Mapping[str, Any] | None = None

    def to_json(self, *, stack: bool = False) -> dict[str, Any]:
        """The record as sent: absent fields are left out, a success keeps its output.

        With `stack` its error has the traceback, as results and storages have it.
        """
        shown: dict[str, Any] = {"status": self.status}
        if self.payload is not None:
            shown["payload"] = self.payload
        if self.status == "success" or self.output is not None:
            shown["output"] = self.output
        if self.started_at is not None:
            shown["startedAt"] = self.started_at
        if self.ended_at is not None:
            shown["endedAt"] = self.ended_at
        if self.metadata is not None:
            shown["metadata"] = self.metadata
        if self.error is not None:
            shown["error"] = self.error.to_json(stack=stack)
        return shown | self._interruption()

    def _interruption(self) -> dict[str, Any]:
        """What tells of a suspension and of its end, which few records have."""
        known = (self.suspend_payload, self.resume_payload, self.suspended_at, self.resumed_at)
        if known == _NEVER_INTERRUPTED:
            return {}
        return {name: value for name, value in zip(_INTERRUPTION, known, strict=True) if value is not None}

    def succeeded(self, output: Any, at: int) -> StepResult:
        """The record of a step that has begun, at its end; written out, since `replace` is slow."""
        return StepResult(
            "success",
            self.payload,
            output,
            resume_payload=self.resume_payload,
            started_at=self.started_at,
            ended_at=at,
            resumed_at=self.resumed_at,
            metadata=self.metadata,
        )

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> StepResult:
        """The record of its JSON form; unknown fields are ignored."""
        error = data.get("error")
        return cls(
            data["status"],
            data.get("payload"),
            data.get("output"),
            RunError.from_json(error) if isinstance(error, Mapping) else error,
            data.get("suspendPayload"),
            data.get("resumePayload"),
            data.get("startedAt"),
            data.get("endedAt"),
            data.get("suspendedAt"),
            data.get("resumedAt"),
            data.get("metadata"),
        )


def is_own_step(key: str) -> bool:
    """Whether a record is that of a step of the workflow's own: no item, and in no nested workflow."""
    return "/" not in key and not key.endswith("]")


_INTERRUPTION = ("suspendPayload", "resumePayload", "suspendedAt", "resumedAt")
_NEVER_INTERRUPTED = (None, None, None, None)


@dataclass(slots=True)
class Snapshot:
    """Everything stored of a run: enough to show it and to go on with it.

    `engine_run_id` is Inngest's id of the function run that executes the newest leg, once it has begun.
    """

    run_id: str
    status: RunStatus = "pending"
    input: Any = None
    records: dict[str, StepResult] = field(default_factory=dict[str, StepResult])
    state: dict[str, Any] = field(default_factory=dict[str, Any])
    request_context: dict[str, Any] = field(default_factory=dict[str, Any])
    active_paths: list[int] = field(default_factory=list[int])
    suspended_paths: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    resume_labels: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    step_execution_path: list[str] = field(default_factory=list[str])
    positions: dict[str, Any] = field(default_factory=dict[str, Any])
    serialized_step_graph: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    result: Any = None
    error: RunError | None = None
    timestamp: int = 0
    engine_run_id: str | None = None

    @property
    def steps(self) -> dict[str, StepResult]:
        """The records of the workflow's own steps: without items and nested ones."""
        return {key: record for key, record in self.records.items() if is_own_step(key)}

    def to_json(self) -> dict[str, Any]:
        """The snapshot as stored and shown."""
        shown = self.header_json()
        shown["context"] |= {key: record.to_json() for key, record in self.records.items()}
        return shown

    def header_json(self, *, stack: bool = False) -> dict[str, Any]:
        """The snapshot without its records, which storages keep one by one."""
        shown: dict[str, Any] = {
            "runId": self.run_id,
            "status": self.status,
            "value": self.state,
            "context": {} if self.input is None else {"input": self.input},
            "activePaths": self.active_paths,
            "activeStepsPath": {
                key: self.active_paths for key, record in self.steps.items() if record.status == "running"
            },
            "stepExecutionPath": self.step_execution_path,
            "suspendedPaths": self.suspended_paths,
            "resumeLabels": self.resume_labels,
            "waitingPaths": {},
            "serializedStepGraph": self.serialized_step_graph,
            "requestContext": self.request_context,
            "timestamp": self.timestamp,
        }
        if self.positions:
            shown["positions"] = self.positions
        if self.engine_run_id is not None:
            shown["engineRunId"] = self.engine_run_id
        if self.status == "success":
            shown["result"] = self.result
        if self.error is not None:
            shown["error"] = self.error.to_json(stack=stack)
        return shown

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Snapshot:
        """The snapshot of its JSON form; absent fields take their defaults."""
        context = dict(data.get("context") or {})
        error = data.get("error")
        return cls(
            run_id=data["runId"],
            status=data.get("status", "pending"),
            input=context.pop("input", None),
            records={key: StepResult.from_json(record) for key, record in context.items()},
            state=dict(data.get("value") or {}),
            request_context=dict(data.get("requestContext") or {}),
            active_paths=list(data.get("activePaths") or []),
            suspended_paths=dict(data.get("suspendedPaths") or {}),
            resume_labels=dict(data.get("resumeLabels") or {}),
            step_execution_path=list(data.get("stepExecutionPath") or []),
            positions=dict(data.get("positions") or {}),
            serialized_step_graph=list(data.get("serializedStepGraph") or []),
            result=data.get("result"),
            error=RunError.from_json(error) if error else None,
            timestamp=int(data.get("timestamp") or 0),
            engine_run_id=data.get("engineRunId"),
        )
