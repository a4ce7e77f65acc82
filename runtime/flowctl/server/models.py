"""What the REST API takes and answers, as models: requests are parsed by them, OpenAPI is made from them.

Called by `api`, `operations` and `openapi`, and by `flowctl.client` for the bodies that it sends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from flowctl.snapshot import RunStatus, StepStatus

PAGE, LONGEST_PAGE = 20, 1000
LONGEST_ID = 200
PRINTABLE = r"^[^\x00-\x1f]*$"

OVER_STORED = "Values that come over those that the run has."
Json = Any
Name = Annotated[str, Field(min_length=1, max_length=LONGEST_ID, pattern=PRINTABLE)]
RunField = Literal["result", "error", "payload", "steps", "activeStepsPath", "serializedStepGraph"]


def _moment(text: object) -> object:
    try:
        moment = datetime.fromisoformat(text.upper()) if isinstance(text, str) else text
    except ValueError:
        raise PydanticCustomError("moment", "Input should be an ISO 8601 date or time") from None
    return moment.replace(tzinfo=moment.tzinfo or UTC) if isinstance(moment, datetime) else moment


def _listed(text: object) -> object:
    return [part.strip() for part in text.split(",") if part.strip()] if isinstance(text, str) else text


def _whole(number: object) -> object:
    """JSON knows one kind of number: 1.0 is an integer."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


Index = Annotated[int, BeforeValidator(_whole), Field(ge=0)]
Moment = Annotated[datetime, BeforeValidator(_moment)]
Fields = Annotated[list[RunField], BeforeValidator(_listed)]


class Model(BaseModel):
    """camelCase on the wire, snake_case in Python."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


def _example(**data: Any) -> ConfigDict:
    """What a body or an answer looks like, for the document."""
    return ConfigDict(json_schema_extra={"examples": [data]})


class Query(Model):
    """Query parameters; those that are not named are passed over."""


class WorkflowsQuery(Query):
    """How much of each workflow is wanted."""

    partial: bool = Field(default=False, description="Leave steps and schemas out.")


class RunsQuery(Query):
    """Which runs, and which page of them: `page` and `perPage`, or `offset` and `limit`."""

    status: RunStatus | None = None
    resource_id: Name | None = None
    from_date: Moment | None = Field(
        default=None, description="Created at or after (ISO 8601; UTC without a zone)."
    )
    to_date: Moment | None = Field(default=None, description="Created at or before.")
    page: int | None = Field(default=None, ge=0, le=2**31, description="Counts from 0.")
    per_page: int | None = Field(default=None, ge=1, le=LONGEST_PAGE)
    offset: int | None = Field(default=None, ge=0, le=2**31)
    limit: Annotated[int, Field(ge=1, le=LONGEST_PAGE)] | Literal["false"] | None = Field(
        default=None, description="As perPage; `false` for all."
    )


class DetailQuery(Query):
    """How much of a run is wanted."""

    fields: Fields | None = Field(
        default=None, description="A comma-separated list; identity and status are always there."
    )
    with_nested_workflows: bool = Field(default=True, description="With the steps of nested workflows.")


class NewRunQuery(Query):
    """The run to use; a new one without."""

    run_id: Name | None = None


class RunQuery(Query):
    """The run that is meant."""

    run_id: Name


class ObserveQuery(RunQuery):
    """The run that is meant, and from which event on."""

    offset: int = Field(default=0, ge=0, le=2**31, description="How many events to skip.")


class Body(Model):
    """A JSON body: types are not guessed at, unknown fields are passed over."""

    model_config = ConfigDict(strict=True)


class CreateRun(Body):
    """What a run may be created with."""

    model_config = _example(resourceId="customer-7")

    resource_id: Name | None = None


class StartRun(Body):
    """What a run is started with."""

    model_config = _example(inputData={"value": 5})

    input_data: Json = None
    initial_state: Mapping[str, Any] | None = None
    request_context: Mapping[str, Any] | None = None
    resource_id: Name | None = None
    per_step: bool = Field(default=False, description="Stop after one step.")
    close_on_suspend: bool = Field(default=True, description="End the stream when the run is suspended.")


class ResumeRun(Body):
    """How a suspended run goes on."""

    model_config = _example(step="approve", resumeData={"approved": True})

    step: str | Sequence[str] | None = Field(
        default=None, description="A step id, a dotted id, or a list of ids."
    )
    label: str | None = None
    resume_data: Json = None
    request_context: Mapping[str, Any] | None = Field(default=None, description=OVER_STORED)
    for_each_index: Index | None = None
    per_step: bool = Field(default=False, description="Stop after one step.")


class Restart(Body):
    """What is different for an interrupted run."""

    model_config = _example(requestContext={"user": "ada"})

    request_context: Mapping[str, Any] | None = Field(default=None, description=OVER_STORED)


class TimeTravel(Body):
    """Where a run goes back to, and what is different there."""

    model_config = _example(step="publish", inputData={"text": "Hello"})

    step: str | Sequence[str] = Field(description="A step id, a dotted id, or a list of ids.")
    input_data: Json = None
    resume_data: Json = None
    context: Mapping[str, Mapping[str, Any]] | None = Field(default=None, description="Records by step id.")
    nested_steps_context: Mapping[str, Mapping[str, Mapping[str, Any]]] | None = Field(
        default=None, description="Records of nested workflows by workflow and step id."
    )
    request_context: Mapping[str, Any] | None = Field(default=None, description=OVER_STORED)
    initial_state: Mapping[str, Any] | None = None
    per_step: bool = Field(default=False, description="Stop after one step.")


class SendEvent(Body):
    """An event for the Inngest engine of the app."""

    model_config = _example(name="order/placed", data={"order": 7})

    name: Name
    data: Mapping[str, Any] = Field(default_factory=dict[str, Any])
    id: Name | None = Field(default=None, description="An event with an id counts once.")


class InvokeFunction(Body):
    """What a function is invoked with."""

    model_config = _example(data={"inputData": {"value": 5}})

    data: Mapping[str, Any] = Field(
        default_factory=dict[str, Any], description='A workflow takes `{"inputData": …}`.'
    )


class Issue(Model):
    """One place where data does not fit."""

    field: str
    message: str


class Problem(Model):
    """Why a request was refused."""

    error: str
    code: str | None = None
    issues: list[Issue] | None = None
    request_id: str | None = None


class Message(Model):
    """That it was done."""

    model_config = _example(message="Workflow run started")

    message: str


class RunCreated(Model):
    """The run's id."""

    model_config = _example(runId="0b9c5d9e-1d1e-4a53-9a34-0d6f6f1f3a55")

    run_id: str


class EventsSent(Model):
    """The ids that the engine gave the events."""

    ids: list[str]


class Invoked(Model):
    """The id that the engine gave: of the event in development, of the run in production."""

    id: str


class Health(Model):
    """That the process answers."""

    success: Literal[True]


class Check(Model):
    """One thing that the app needs."""

    ok: bool
    error: str | None = None


class Readiness(Model):
    """Whether the app can do its work, and what is missing."""

    ready: bool
    checks: dict[str, Check]


class StepInfo(Model):
    """A step of a workflow; schemas are JSON Schema as text, under the key `json`."""

    id: str
    description: str | None
    input_schema: str | None
    output_schema: str | None
    resume_schema: str | None
    suspend_schema: str | None
    state_schema: str | None
    is_workflow: bool
    metadata: dict[str, Any] | None


class WorkflowInfo(Model):
    """A workflow, its steps and its graph; schemas are JSON Schema as text, under the key `json`."""

    name: str
    description: str | None
    steps: dict[str, StepInfo]
    all_steps: dict[str, StepInfo]
    step_count: int
    step_graph: list[dict[str, Any]]
    input_schema: str | None = None
    output_schema: str | None = None
    state_schema: str | None = None
    request_context_schema: str | None = None
    metadata: dict[str, Any] | None = None
    options: dict[str, Any]
    origin: Literal["code"]


class FunctionInfo(Model):
    """An Inngest function that the app serves."""

    id: str
    name: str
    triggers: list[dict[str, Any]]


class RunCounts(Model):
    """How many runs of a workflow are under way, and how many wait for data."""

    running: int
    suspended: int


class ErrorInfo(Model):
    """An error of a run, with the exception's own attributes beside.

    Results and single runs have the traceback as `stack`; lists and events do not.
    """

    model_config = ConfigDict(extra="allow")

    name: str
    message: str
    stack: str | None = None


class StepRecord(Model):
    """What is known of a step of a run; times in epoch milliseconds."""

    status: StepStatus
    payload: Json = None
    output: Json = None
    error: ErrorInfo | None = None
    suspend_payload: Json = None
    resume_payload: Json = None
    started_at: int | None = None
    ended_at: int | None = None
    suspended_at: int | None = None
    resumed_at: int | None = None
    metadata: dict[str, Any] | None = None


class StoredRun(Model):
    """A run with its whole snapshot."""

    workflow_name: str
    run_id: str
    resource_id: str | None
    created_at: datetime
    updated_at: datetime
    snapshot: dict[str, Any]


class RunPage(Model):
    """A page of runs, newest first, and how many there are in all."""

    runs: list[StoredRun]
    total: int


class RunDetail(Model):
    """A run as people look at it."""

    run_id: str
    workflow_name: str
    resource_id: str | None
    created_at: datetime
    updated_at: datetime
    status: RunStatus
    result: Json = None
    error: ErrorInfo | None = None
    payload: Json = None
    initial_state: dict[str, Any] | None = None
    steps: dict[str, StepRecord] | None = None
    active_steps_path: dict[str, list[int]] | None = None
    serialized_step_graph: list[dict[str, Any]] | None = None
    suspended_paths: dict[str, list[int]] | None = None
    waiting_paths: dict[str, list[int]] | None = None
    resume_labels: dict[str, dict[str, Any]] | None = None
    step_execution_path: list[str] | None = None


class RunResult(Model):
    """Where a run stands after a call; `steps` has the workflow's input under `input`."""

    model_config = _example(
        status="success",
        runId="0b9c5d9e-1d1e-4a53-9a34-0d6f6f1f3a55",
        input={"value": 9},
        steps={
            "input": {"value": 9},
            "increment": {"status": "success", "payload": {"value": 9}, "output": {"value": 10}},
        },
        stepExecutionPath=["increment"],
        result={"value": 10},
    )

    status: RunStatus
    run_id: str
    input: Json = None
    steps: dict[str, Any]
    step_execution_path: list[str]
    result: Json = None
    error: ErrorInfo | None = None
    suspended: list[list[str]] | None = None
    suspend_payload: dict[str, Any] | None = None
    resume_labels: dict[str, dict[str, Any]] | None = None


class RunEvent(Model):
    """One thing that happened in a run; events of users have their own fields in place of `payload`."""

    model_config = ConfigDict(extra="allow")

    type: str
    run_id: str
    origin: Literal["WORKFLOW", "USER"] = Field(alias="from")
    payload: dict[str, Any] | None = None
