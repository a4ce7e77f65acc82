"""The client: one method per verb of a run, and what there is to see."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self, TypedDict, Unpack
from urllib.parse import quote

import httpx

from flowctl.client.connection import Connection
from flowctl.events import WorkflowEvent
from flowctl.result import RunResult
from flowctl.schema import to_json
from flowctl.server import models, wire
from flowctl.snapshot import RunStatus
from flowctl.stored_run import StoredRun, StoredRuns

DEFAULT_URL = "http://127.0.0.1:4111"

StepName = str | Sequence[str]
Data = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class WorkflowInfo:
    """What a server tells of a workflow; schemas are JSON Schema, None where there is none."""

    id: str
    description: str | None
    steps: Mapping[str, Mapping[str, Any]]
    step_graph: Sequence[Mapping[str, Any]]
    input_schema: Mapping[str, Any] | None
    output_schema: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class FunctionInfo:
    """An Inngest function that a server serves."""

    id: str
    name: str


class ResumeOptions(TypedDict, total=False):
    """How a suspended run goes on: see `Run.resume`."""

    step: StepName | None
    resume_data: Any
    label: str | None
    for_each_index: int | None
    request_context: Data | None
    per_step: bool


class TravelOptions(TypedDict, total=False):
    """What is different when a run goes back: see `Run.time_travel`."""

    input_data: Any
    resume_data: Any
    context: Mapping[str, Data] | None
    nested_steps_context: Mapping[str, Mapping[str, Data]] | None
    initial_state: Any
    request_context: Data | None
    per_step: bool


class Client:
    """Calls to one server. Use it as a context manager, or `close()` it.

    A call raises what the same call raises in the server's process (ValidationError, NotFoundError,
    NotSuspendedError, AlreadyClaimedError…), ServerUnreachableError when there is no answer, else ApiError.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """`api_key` is sent as a bearer token; `transport` is for tests and proxies (see httpx)."""
        bearer = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._connection = Connection(url, {**bearer, **(headers or {})}, transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Drop the connections."""
        await self._connection.close()

    async def list_workflows(self) -> dict[str, WorkflowInfo]:
        """The workflows by id."""
        listed = await self.call("GET", "/workflows")
        return {id: _workflow(shown) for id, shown in listed.items()}

    async def get_workflow(self, workflow_id: str) -> WorkflowInfo:
        """One workflow."""
        return _workflow(await self.call("GET", _path(workflow_id)))

    async def list_functions(self) -> list[FunctionInfo]:
        """The Inngest functions, workflows' included."""
        return [FunctionInfo(f["id"], f["name"]) for f in await self.call("GET", "/functions")]

    async def list_runs(
        self,
        workflow_id: str,
        *,
        status: RunStatus | None = None,
        resource_id: str | None = None,
        from_date: datetime | None = None,
        to_date: datetime | None = None,
        page: int | None = None,
        per_page: int | None = None,
    ) -> StoredRuns:
        """A page of runs, newest first; `page` counts from 0, `total` counts all pages."""
        shown = await self.call(
            "GET",
            _path(workflow_id, "runs"),
            status=status,
            resourceId=resource_id,
            fromDate=from_date.isoformat() if from_date else None,
            toDate=to_date.isoformat() if to_date else None,
            page=page,
            perPage=per_page,
        )
        return StoredRuns([StoredRun.from_json(run) for run in shown["runs"]], shown["total"])

    async def get_run(
        self, workflow_id: str, run_id: str, *, with_nested_workflows: bool = True
    ) -> StoredRun:
        """One run with its steps, those of nested workflows too unless told otherwise."""
        nested = None if with_nested_workflows else "false"
        path = _path(workflow_id, "runs", run_id)
        return wire.stored_run(await self.call("GET", path, withNestedWorkflows=nested))

    async def delete_run(self, workflow_id: str, run_id: str) -> None:
        """Forget a run."""
        await self.call("DELETE", _path(workflow_id, "runs", run_id))

    async def create_run(
        self, workflow_id: str, run_id: str | None = None, *, resource_id: str | None = None
    ) -> str:
        """Store a pending run; answers its id."""
        body = {"resourceId": resource_id}
        return str((await self.call("POST", _path(workflow_id, "create-run"), body, runId=run_id))["runId"])

    async def start(
        self,
        workflow_id: str,
        input_data: Any = None,
        *,
        run_id: str | None = None,
        resource_id: str | None = None,
        initial_state: Any = None,
        request_context: Data | None = None,
        per_step: bool = False,
    ) -> RunResult[Any]:
        """Run to the first stop and answer where it stands; waits as long as that takes."""
        body = models.StartRun(
            input_data=to_json(input_data),
            initial_state=to_json(initial_state),
            request_context=request_context,
            resource_id=resource_id,
            per_step=per_step,
        )
        return await self._waited(workflow_id, "start-async", body, run_id)

    async def start_async(
        self,
        workflow_id: str,
        input_data: Any = None,
        *,
        run_id: str | None = None,
        resource_id: str | None = None,
        initial_state: Any = None,
        request_context: Data | None = None,
        per_step: bool = False,
    ) -> str:
        """As `start`, but answers the run's id at once."""
        id = await self.create_run(workflow_id, run_id, resource_id=resource_id)
        body = models.StartRun(
            input_data=to_json(input_data),
            initial_state=to_json(initial_state),
            request_context=request_context,
            per_step=per_step,
        )
        await self.call("POST", _path(workflow_id, "start"), _json(body), runId=id)
        return id

    async def stream(
        self,
        workflow_id: str,
        input_data: Any = None,
        *,
        run_id: str | None = None,
        resource_id: str | None = None,
        initial_state: Any = None,
        request_context: Data | None = None,
        per_step: bool = False,
        close_on_suspend: bool = True,
    ) -> AsyncIterator[WorkflowEvent]:
        """As `start`, as the run's events; a stream that breaks is taken up where it was."""
        body = models.StartRun(
            input_data=to_json(input_data),
            initial_state=to_json(initial_state),
            request_context=request_context,
            resource_id=resource_id,
            per_step=per_step,
            close_on_suspend=close_on_suspend,
        )
        id = run_id or str(uuid.uuid4())  # known before the first event: a broken stream can be taken up
        async for event in self._events(workflow_id, "stream", body, id):
            yield event

    async def observe(self, workflow_id: str, run_id: str) -> AsyncIterator[WorkflowEvent]:
        """All events of a run so far, then new ones, until it ends."""
        async for event in self._events(workflow_id, "observe", models.Body(), run_id):
            yield event

    async def resume(self, workflow_id: str, run_id: str, **how: Unpack[ResumeOptions]) -> RunResult[Any]:
        """Go on with a suspended step and answer where the run stands then."""
        return await self._waited(workflow_id, "resume-async", _resumption(how), run_id)

    async def resume_async(self, workflow_id: str, run_id: str, **how: Unpack[ResumeOptions]) -> None:
        """As `resume`, but does not wait."""
        await self.call("POST", _path(workflow_id, "resume"), _json(_resumption(how)), runId=run_id)

    async def resume_stream(
        self, workflow_id: str, run_id: str, **how: Unpack[ResumeOptions]
    ) -> AsyncIterator[WorkflowEvent]:
        """As `resume`, as this leg's events."""
        async for event in self._events(workflow_id, "resume-stream", _resumption(how), run_id):
            yield event

    async def restart(
        self, workflow_id: str, run_id: str, *, request_context: Data | None = None
    ) -> RunResult[Any]:
        """Go on with a run whose process is gone, and answer where it stands then."""
        body = models.Restart(request_context=request_context)
        return await self._waited(workflow_id, "restart-async", body, run_id)

    async def restart_async(
        self, workflow_id: str, run_id: str, *, request_context: Data | None = None
    ) -> None:
        """As `restart`, but does not wait."""
        body = models.Restart(request_context=request_context)
        await self.call("POST", _path(workflow_id, "restart"), _json(body), runId=run_id)

    async def time_travel(
        self, workflow_id: str, run_id: str, step: StepName, **how: Unpack[TravelOptions]
    ) -> RunResult[Any]:
        """Run again from a step on, and answer where the run stands then."""
        return await self._waited(workflow_id, "time-travel-async", _travel(step, how), run_id)

    async def time_travel_stream(
        self, workflow_id: str, run_id: str, step: StepName, **how: Unpack[TravelOptions]
    ) -> AsyncIterator[WorkflowEvent]:
        """As `time_travel`, as this leg's events."""
        async for event in self._events(workflow_id, "time-travel-stream", _travel(step, how), run_id):
            yield event

    async def cancel(self, workflow_id: str, run_id: str) -> None:
        """End a run as canceled; one that has ended stays as it is."""
        await self.call("POST", _path(workflow_id, "runs", run_id, "cancel"))

    async def send(self, event: str, data: Data | None = None) -> list[str]:
        """Send an event to the app's Inngest engine; answers the ids it got."""
        return list((await self.call("POST", "/events", {"name": event, "data": data or {}}))["ids"])

    async def invoke(self, function_id: str, data: Data | None = None) -> str:
        """Have Inngest run one function, of a workflow or a custom one; answers the event's or run's id."""
        path = f"/functions/{quote(function_id, safe='')}/invoke"
        return str((await self.call("POST", path, {"data": data or {}}))["id"])

    async def call(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """Any route below `/api`, as JSON; None in `query` and at the top of `body` is left out."""
        return await self._connection.call(method, path, body, query)

    async def _waited(
        self, workflow_id: str, action: str, body: models.Body, run_id: str | None
    ) -> RunResult[Any]:
        path = _path(workflow_id, action)
        shown = await self._connection.call("POST", path, _json(body), {"runId": run_id}, waits=True)
        return RunResult[Any].from_json(shown, workflow_id=workflow_id)

    def _events(
        self, workflow_id: str, action: str, body: models.Body, run_id: str | None
    ) -> AsyncIterator[WorkflowEvent]:
        return self._connection.events(_path(workflow_id, action), _json(body), {"runId": run_id})


def _json(body: models.Body) -> dict[str, Any]:
    return body.model_dump(by_alias=True, exclude_none=True)


def _resumption(how: ResumeOptions) -> models.ResumeRun:
    plain: ResumeOptions = {**how, "resume_data": to_json(how.get("resume_data"))}
    return models.ResumeRun(**plain)


def _travel(step: StepName, how: TravelOptions) -> models.TimeTravel:
    plain = {name: to_json(value) for name, value in how.items()}
    return models.TimeTravel(step=step, **plain)


def _path(*parts: str) -> str:
    return "/workflows/" + "/".join(quote(part, safe="") for part in parts)


def _workflow(shown: Mapping[str, Any]) -> WorkflowInfo:
    return WorkflowInfo(
        id=shown["name"],
        description=shown.get("description"),
        steps=shown["steps"],
        step_graph=shown["stepGraph"],
        input_schema=_schema(shown.get("inputSchema")),
        output_schema=_schema(shown.get("outputSchema")),
    )


def _schema(text: str | None) -> Mapping[str, Any] | None:
    return json.loads(text)["json"] if text else None
