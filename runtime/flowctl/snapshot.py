"""What is known of a run: step records, the stored snapshot, and the result users get.

Python names are snake_case, the JSON of `to_json`/`from_json` is camelCase; times are epoch milliseconds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal

from typing_extensions import TypeVar

Out = TypeVar("Out", default=Any)

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
        return {
            key: record for key, record in self.records.items() if "/" not in key and not key.endswith("]")
        }

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


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run as storage lists it: identity, times and the snapshot."""

    workflow_id: str
    run_id: str
    resource_id: str | None
    created_at: str
    updated_at: str
    snapshot: Snapshot
    leg: int = 0

    @property
    def status(self) -> RunStatus:
        """The run's status."""
        return self.snapshot.status

    @property
    def steps(self) -> dict[str, StepResult]:
        """The records of the workflow's steps; nested ones too where `get_workflow_run_by_id` names them."""
        return self.snapshot.steps

    @property
    def input(self) -> Any:
        """The workflow's input, JSON data."""
        return self.snapshot.input

    @property
    def result(self) -> Any:
        """The workflow's result, JSON data, after a success."""
        return self.snapshot.result

    @property
    def error(self) -> RunError | None:
        """Why the run failed, without the stack."""
        return self.snapshot.error

    @property
    def state(self) -> dict[str, Any]:
        """The run's state."""
        return self.snapshot.state

    def to_json(self) -> dict[str, Any]:
        """As the list route shows it."""
        return {
            "workflowName": self.workflow_id,
            "runId": self.run_id,
            "snapshot": self.snapshot.to_json(),
            "resourceId": self.resource_id,
            "createdAt": self.created_at,
            "updatedAt": self.updated_at,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> StoredRun:
        """The run of its JSON form."""
        return cls(
            workflow_id=data["workflowName"],
            run_id=data["runId"],
            resource_id=data.get("resourceId"),
            created_at=data["createdAt"],
            updated_at=data["updatedAt"],
            snapshot=Snapshot.from_json(data["snapshot"]),
        )


@dataclass(frozen=True, slots=True)
class StoredRuns:
    """A page of runs, and how many there are in all."""

    runs: list[StoredRun]
    total: int


def settled(snapshot: Snapshot) -> Snapshot:
    """A snapshot whose steps do not seem to run when the run was canceled."""
    if snapshot.status != "canceled":
        return snapshot
    in_flight = {"running", "waiting"}
    records = {
        key: replace(record, status="canceled") if record.status in in_flight else record
        for key, record in snapshot.records.items()
    }
    return replace(snapshot, records=records)


def shown(snapshot: Snapshot, *, nested: bool) -> Snapshot:
    """A stored run as people look at it: nested steps as `outer.inner`, no items.

    What has a suspended step inside is shown as running: only the step itself waits.
    """
    records = settled(snapshot).records
    around = {outer for key, r in records.items() if r.status == "suspended" for outer in _around(key)}
    kept = {
        key.replace("/", "."): _running(record) if nested and key in around else record
        for key, record in records.items()
        if not key.endswith("]") and (nested or "/" not in key)
    }
    return replace(snapshot, records=kept)


def untraced(snapshot: Snapshot) -> Snapshot:
    """A snapshot whose errors have no traceback."""
    records = {key: replace(r, error=_plain(r.error)) for key, r in snapshot.records.items()}
    return replace(snapshot, records=records, error=_plain(snapshot.error))


_OPTIONAL = {
    "steps": "records",
    "input": "input",
    "payload": "input",
    "state": "state",
    "initial_state": "state",
    "result": "result",
    "error": "error",
    "request_context": "request_context",
    "serialized_step_graph": "serialized_step_graph",
    "step_execution_path": "step_execution_path",
    "suspended_paths": "suspended_paths",
    "resume_labels": "resume_labels",
}


def picked(snapshot: Snapshot, fields: Collection[str]) -> Snapshot:
    """A snapshot with its status and these fields only; raises ValueError naming those there are."""
    known = _OPTIONAL | {camel(name): kept for name, kept in _OPTIONAL.items()} | {"status": "status"}
    unknown = [name for name in fields if name not in known]
    if unknown:
        raise ValueError(f"A run has no field {unknown[0]!r}. There are: status, {', '.join(_OPTIONAL)}.")
    kept: dict[str, Any] = {known[name]: getattr(snapshot, known[name]) for name in fields}
    return replace(Snapshot(snapshot.run_id, snapshot.status), **kept)


def _around(key: str) -> Iterator[str]:
    """The records that a nested record lies in: `a` and `a/b` for `a/b/c`."""
    while "/" in key:
        key = key.rpartition("/")[0]
        yield key
        if key.endswith("]"):
            yield key.rpartition("[")[0]


def _running(record: StepResult) -> StepResult:
    return replace(record, status="running") if record.status == "suspended" else record


def _plain(error: RunError | None) -> RunError | None:
    return error.without_stack() if error else None
