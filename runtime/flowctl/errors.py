"""Every error flowctl raises on purpose, as one tree.

    FlowctlError
    ├── DefinitionError              a workflow, step or app is put together wrongly
    ├── ValidationError              data does not fit a schema (carries the issues)
    ├── StateTooLargeError           a run's state would be larger than one may be
    ├── NotFoundError                no such thing under that id
    │   ├── WorkflowNotFoundError
    │   ├── RunNotFoundError
    │   └── StepNotFoundError
    ├── RunStateError                the run is not in a state that allows this
    │   ├── NotSuspendedError
    │   ├── AmbiguousStepError
    │   ├── AlreadyClaimedError
    │   ├── StillRunningError
    │   └── NotActiveError
    ├── EngineError                  the Inngest engine is out of reach or refused
    ├── StorageError                 the database cannot be used
    ├── ConfigurationError           an option or environment variable is wrong
    └── NonRetriableError            raised by user code: fail now, do not try again

`code` names the error on the wire, `http_status` is the API's answer and `exit_code` the command line's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

__all__ = [
    "AlreadyClaimedError",
    "AmbiguousStepError",
    "ConfigurationError",
    "DefinitionError",
    "EngineError",
    "FlowctlError",
    "Issue",
    "NonRetriableError",
    "NotActiveError",
    "NotFoundError",
    "NotSuspendedError",
    "RunNotFoundError",
    "RunStateError",
    "StateTooLargeError",
    "StepNotFoundError",
    "StillRunningError",
    "StorageError",
    "TimeTravelError",
    "ValidationError",
    "WorkflowNotFoundError",
]


class FlowctlError(Exception):
    """The root of the tree: catch it to catch everything flowctl raises on purpose."""

    code: ClassVar[str] = "FLOWCTL_ERROR"
    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1


class DefinitionError(FlowctlError):
    """A workflow, a step or an app is defined in a way that cannot run."""

    code = "INVALID_DEFINITION"
    exit_code = 3


class ConfigurationError(FlowctlError):
    """An option, a setting or an environment variable has a value that cannot be used."""

    code = "INVALID_CONFIGURATION"
    exit_code = 2


@dataclass(frozen=True, slots=True)
class Issue:
    """One place where data does not fit its schema: a dotted path (`""` for the whole) and what is wrong."""

    path: str
    message: str

    def to_json(self) -> dict[str, str]:
        """The issue as the HTTP API shows it."""
        return {"field": self.path, "message": self.message}


class SchemaIssues(Exception):  # noqa: N818 - a list of facts that stands as the cause of an error, never raised alone
    """The cause of a validation failure: what pydantic found, one issue a place."""

    def __init__(self, issues: Iterable[Issue]) -> None:
        self.issues: list[dict[str, str]] = [issue.to_json() for issue in issues]
        super().__init__("; ".join(f"{i['field']}: {i['message']}" for i in self.issues))


class ValidationError(FlowctlError):
    """Data does not fit its schema; nothing was started or consumed.

    `issues` has every place, each with a dotted `path` and a `message`; the message has a line for each.
    """

    code = "INVALID_DATA"
    http_status = 400
    exit_code = 2

    def __init__(self, what: str, issues: Sequence[Issue]) -> None:
        self.what = what
        self.issues: list[Issue] = list(issues)
        lines = "".join(f"\n- {f'{i.path}: ' if i.path else ''}{i.message}" for i in self.issues)
        super().__init__(f"{what}: {lines}")


class StateTooLargeError(FlowctlError):
    """A run's state would be larger than one may be (bytes of JSON): nothing was changed."""

    code = "STATE_TOO_LARGE"
    http_status = 413
    exit_code = 2

    def __init__(self, size: int, limit: int) -> None:
        self.size, self.limit = size, limit
        super().__init__(
            f"The run's state would be {size:,} bytes of JSON; {limit:,} is the most. "
            "Keep large data in a database or file of yours, and in the state what names it."
        )


class NotFoundError(FlowctlError):
    """There is nothing under that id."""

    code = "NOT_FOUND"
    http_status = 404
    exit_code = 2


class WorkflowNotFoundError(NotFoundError):
    """The app has no workflow with that id."""

    code = "WORKFLOW_NOT_FOUND"

    def __init__(self, workflow_id: str, known: Iterable[str] = ()) -> None:
        self.workflow_id, self.known = workflow_id, sorted(known)
        there = f"There is: {', '.join(self.known)}." if self.known else "The app has no workflows."
        super().__init__(f"No workflow {workflow_id!r}. {there}")


class RunNotFoundError(NotFoundError):
    """Nothing is stored for that run."""

    code = "RUN_NOT_FOUND"

    def __init__(self, workflow_id: str, run_id: str) -> None:
        self.workflow_id, self.run_id = workflow_id, run_id
        super().__init__(f"No run {run_id!r} of workflow {workflow_id!r}.")


class StepNotFoundError(NotFoundError):
    """The workflow has no step with that id (or path)."""

    code = "STEP_NOT_FOUND"

    def __init__(self, message: str) -> None:
        super().__init__(message)


class RunStateError(FlowctlError):
    """The run's state does not allow what was asked; nothing was changed."""

    code = "WRONG_RUN_STATE"
    http_status = 409
    exit_code = 2


class NotSuspendedError(RunStateError):
    """The run, or the step, item or label that was named, is not suspended; the message says what is."""

    code = "NOT_SUSPENDED"


class AmbiguousStepError(RunStateError):
    """Several steps are suspended and none was named: pass `step=` or `label=`."""

    code = "STEP_REQUIRED"


class AlreadyClaimedError(RunStateError):
    """Another call resumed or restarted this run first."""

    code = "ALREADY_CLAIMED"


class StillRunningError(RunStateError):
    """The run is still running, or was started before: start another one, resume or restart it."""

    code = "STILL_RUNNING"


class NotActiveError(RunStateError):
    """The run is not active, so there is nothing to restart."""

    code = "NOT_ACTIVE"


class TimeTravelError(RunStateError):
    """A time travel lacks the past it needs: pass records of the steps before the target as `context`."""

    code = "CANNOT_TIME_TRAVEL"


class EngineError(FlowctlError):
    """The Inngest engine cannot be reached, or it refused."""

    code = "ENGINE_UNREACHABLE"
    http_status = 503
    exit_code = 4


class StorageError(FlowctlError):
    """The database cannot be opened, read or written."""

    code = "STORAGE_ERROR"
    http_status = 503
    exit_code = 4


class NonRetriableError(FlowctlError):
    """Raise it in a step to fail at once, whatever retries are left.

    Keywords become attributes of the error in results: `NonRetriableError("declined", code=402)`.
    """

    code = "NON_RETRIABLE"

    def __init__(self, message: str, **attributes: Any) -> None:
        super().__init__(message)
        self.__dict__.update(attributes)
