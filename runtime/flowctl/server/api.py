"""The REST API of workflows: each route parses, calls a run, answers. Shapes are in `wire`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import pydantic
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from flowctl.errors import Issue, RunNotFoundError, ValidationError
from flowctl.run import Run
from flowctl.server import wire
from flowctl.snapshot import StoredRun
from flowctl.stream import RunStream

if TYPE_CHECKING:
    from flowctl.app import App
    from flowctl.workflow import Workflow

B = TypeVar("B", bound=wire.Body)
SEPARATOR = b"\x1e"
PAGE = 20


def json_response(body: Any, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(wire.dump(body), status, media_type="application/json")


@dataclass(frozen=True, slots=True)
class WorkflowRoutes:
    """One method a route."""

    app: App

    def routes(self) -> list[BaseRoute]:
        """The route table below `/api`."""
        post = ["POST"]
        one, run = "/workflows/{workflow}", "/workflows/{workflow}/runs/{run}"
        return [
            Route("/workflows", self.list_workflows),
            Route("/functions", self.list_functions),
            Route(one, self.get_workflow),
            Route(f"{one}/runs", self.list_runs),
            Route(run, self.get_run),
            Route(run, self.delete_run, methods=["DELETE"]),
            Route(f"{run}/cancel", self.cancel, methods=post),
            Route(f"{one}/create-run", self.create_run, methods=post),
            Route(f"{one}/start", self.start, methods=post),
            Route(f"{one}/start-async", self.start_async, methods=post),
            Route(f"{one}/stream", self.stream, methods=post),
            Route(f"{one}/observe", self.observe, methods=post),
            Route(f"{one}/resume", self.resume, methods=post),
            Route(f"{one}/resume-no-wait", self.resume_no_wait, methods=post),
            Route(f"{one}/resume-async", self.resume_async, methods=post),
            Route(f"{one}/resume-stream", self.resume_stream, methods=post),
            Route(f"{one}/time-travel", self.time_travel, methods=post),
            Route(f"{one}/time-travel-async", self.time_travel_async, methods=post),
            Route(f"{one}/time-travel-stream", self.time_travel_stream, methods=post),
            Route(f"{one}/restart", self.restart, methods=post),
            Route(f"{one}/restart-async", self.restart, methods=post),
        ]

    async def list_workflows(self, _: Request) -> Response:
        """All workflows by id."""
        return json_response({id: wire.workflow_json(w) for id, w in self.app.workflows.items()})

    async def list_functions(self, _: Request) -> Response:
        """The Inngest functions that the app serves, workflows' included."""
        functions = self.app.inngest_functions()
        return json_response([{"id": f.local_id, "name": f.name} for f in functions])

    async def get_workflow(self, request: Request) -> Response:
        """One workflow."""
        return json_response(wire.workflow_json(self._workflow(request)))

    async def list_runs(self, request: Request) -> Response:
        """A page of runs, newest first."""
        query = request.query_params
        per_page = _number(request, "perPage") or _number(request, "limit")
        offset = _number(request, "offset") or 0
        page = _number(request, "page") or (offset // (per_page or PAGE))
        runs = await self._workflow(request).list_workflow_runs(
            status=query.get("status"),
            resource_id=query.get("resourceId"),
            from_date=_date(request, "fromDate"),
            to_date=_date(request, "toDate"),
            page=page,
            per_page=per_page or PAGE,
        )
        return json_response({"runs": [run.to_json() for run in runs.runs], "total": runs.total})

    async def get_run(self, request: Request) -> Response:
        """One run."""
        fields = request.query_params.get("fields")
        nested = request.query_params.get("withNestedWorkflows", "true") != "false"
        run = await self._stored(request, nested=nested)
        return json_response(wire.run_json(run, set(fields.split(",")) if fields else None))

    async def delete_run(self, request: Request) -> Response:
        """Forget a run."""
        workflow, run_id = self._workflow(request), request.path_params["run"]
        if not await workflow.delete_workflow_run_by_id(run_id):
            raise RunNotFoundError(workflow.id, run_id)
        return json_response({"message": "Workflow run deleted"})

    async def cancel(self, request: Request) -> Response:
        """End a run."""
        await (await self._run(request, request.path_params["run"])).cancel()
        return json_response({"message": "Workflow run canceled"})

    async def create_run(self, request: Request) -> Response:
        """Store a pending run."""
        body = await _body(request, wire.CreateRun)
        run = await self._workflow(request).create_run(
            run_id=request.query_params.get("runId"), resource_id=body.resource_id
        )
        return json_response({"runId": run.run_id})

    async def start(self, request: Request) -> Response:
        """Start a created run; answers at once."""
        body = await _body(request, wire.StartRun)
        await (await self._run(request)).start_async(*_input(body), per_step=body.per_step)
        return json_response({"message": "Workflow run started"})

    async def start_async(self, request: Request) -> Response:
        """Start a run, created or new; answers its result."""
        body = await _body(request, wire.StartRun)
        run = await self._workflow(request).create_run(
            run_id=request.query_params.get("runId"), resource_id=body.resource_id
        )
        result = await run.start(*_input(body), per_step=body.per_step)
        return json_response(result.to_json())

    async def stream(self, request: Request) -> Response:
        """Start a run; answers its events as they come."""
        body = await _body(request, wire.StartRun)
        run = await self._workflow(request).create_run(
            run_id=request.query_params.get("runId"), resource_id=body.resource_id
        )
        events = run.stream(*_input(body), per_step=body.per_step, close_on_suspend=body.close_on_suspend)
        return await _streamed(request, events)

    async def observe(self, request: Request) -> Response:
        """All events of a run so far, then new ones."""
        return await _streamed(request, (await self._run(request)).observe_stream())

    async def resume(self, request: Request) -> Response:
        """Go on with a run; answers at once."""
        run = await self._run(request)
        await run.resume_async(**_fields(await _body(request, wire.ResumeRun)))
        return json_response({"message": "Workflow run resumed"})

    async def resume_no_wait(self, request: Request) -> Response:
        """Go on with a run; answers its id at once."""
        run = await self._run(request)
        id = await run.resume_async(**_fields(await _body(request, wire.ResumeRun)))
        return json_response({"runId": id})

    async def resume_async(self, request: Request) -> Response:
        """Go on with a run; answers its result."""
        run = await self._run(request)
        result = await run.resume(**_fields(await _body(request, wire.ResumeRun)))
        return json_response(result.to_json())

    async def resume_stream(self, request: Request) -> Response:
        """Go on with a run; answers its events as they come."""
        run = await self._run(request)
        return await _streamed(request, run.resume_stream(**_fields(await _body(request, wire.ResumeRun))))

    async def restart(self, request: Request) -> Response:
        """Go on with a run whose process is gone; answers its result."""
        return json_response((await (await self._run(request)).restart()).to_json())

    async def time_travel(self, request: Request) -> Response:
        """Run again from a step on; answers at once."""
        run = await self._run(request)
        await run.time_travel_stream(**_fields(await _body(request, wire.TimeTravel))).begun()
        return json_response({"message": "Workflow run time travel started"})

    async def time_travel_async(self, request: Request) -> Response:
        """Run again from a step on; answers the result."""
        run = await self._run(request)
        result = await run.time_travel(**_fields(await _body(request, wire.TimeTravel)))
        return json_response(result.to_json())

    async def time_travel_stream(self, request: Request) -> Response:
        """Run again from a step on; answers the events as they come."""
        run = await self._run(request)
        stream = run.time_travel_stream(**_fields(await _body(request, wire.TimeTravel)))
        return await _streamed(request, stream)

    def _workflow(self, request: Request) -> Workflow[Any, Any]:
        return self.app.get_workflow(request.path_params["workflow"])

    async def _stored(self, request: Request, *, nested: bool) -> StoredRun:
        workflow, run_id = self._workflow(request), request.path_params["run"]
        run = await workflow.get_workflow_run_by_id(run_id, with_nested_workflows=nested)
        if run is None:
            raise RunNotFoundError(workflow.id, run_id)
        return run

    async def _run(self, request: Request, run_id: str | None = None) -> Run[Any]:
        """The stored run that is asked for; it is not made by asking."""
        workflow = self._workflow(request)
        id = run_id or request.query_params.get("runId")
        if not id:
            raise ValidationError("Invalid query parameters", [Issue("runId", "Field required")])
        if await workflow.get_workflow_run_by_id(id) is None:
            raise RunNotFoundError(workflow.id, id)
        return await workflow.create_run(run_id=id)


def _input(body: wire.StartRun) -> tuple[Any, Any, Any]:
    return body.input_data, body.initial_state, body.request_context


def _fields(body: wire.Body) -> dict[str, Any]:
    return {name: getattr(body, name) for name in type(body).model_fields}


async def _body(request: Request, model: type[B]) -> B:
    raw = await request.body()
    try:
        return model.model_validate_json(raw or b"{}")
    except pydantic.ValidationError as err:
        issues = [Issue(".".join(map(str, e["loc"])), e["msg"]) for e in err.errors(include_url=False)]
        raise ValidationError("Invalid request body", issues) from err


def _number(request: Request, name: str) -> int | None:
    text = request.query_params.get(name)
    if text is None or text.isdigit():
        return int(text) if text else None
    raise ValidationError("Invalid query parameters", [Issue(name, "Input should be a number")])


def _date(request: Request, name: str) -> datetime | None:
    text = request.query_params.get(name)
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError as err:
        issue = Issue(name, "Input should be an ISO 8601 date")
        raise ValidationError("Invalid query parameters", [issue]) from err


async def _streamed(request: Request, events: RunStream[Any]) -> Response:
    """Begin (so that a refusal is an error answer), then pass the events on."""
    await events.begun()
    lines = "application/x-ndjson" in request.headers.get("accept", "")

    async def chunks() -> AsyncIterator[bytes]:
        async for event in events:
            yield wire.dump(event.to_json()) + (b"\n" if lines else SEPARATOR)

    return StreamingResponse(chunks(), media_type="application/x-ndjson" if lines else "text/plain")
