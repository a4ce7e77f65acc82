"""The REST API of workflows and runs: each function answers one route; the table says which.

Called by `app` (routes) and `openapi`; calls runs and `functions`. Shapes are in `models` and `wire`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine
from typing import Any

from starlette.responses import Response

from flowctl.errors import RunNotFoundError
from flowctl.result import RunResult
from flowctl.run import Run
from flowctl.server import functions, models, streams, wire
from flowctl.server.models import Body, NewRunQuery, Query, RunQuery
from flowctl.server.operations import Call, Operation, json_response, operation
from flowctl.snapshot import TERMINAL
from flowctl.stored import in_detail
from flowctl.stored_run import StoredRun
from flowctl.stream import RunStream
from flowctl.take_over import take_over

StartCall = Call[NewRunQuery, models.StartRun]
ResumeCall = Call[RunQuery, models.ResumeRun]
TravelCall = Call[RunQuery, models.TimeTravel]
AT_REST = TERMINAL | {"suspended", "paused"}


async def list_workflows(call: Call[models.WorkflowsQuery, Body]) -> Response:
    """All workflows, by id."""
    partial = call.query.partial
    listed = {id: wire.workflow_json(w, partial=partial) for id, w in call.app.workflows.items()}
    return json_response(listed)


async def run_counts(call: Call[Query, Body]) -> Response:
    """How many runs of each workflow are under way or wait for data."""
    ids, storage = list(call.app.workflows), await call.app.opened()
    found = await storage.count_runs(ids, ["running", "waiting", "suspended"])

    def counts(id: str) -> dict[str, int]:
        running = found.get((id, "running"), 0) + found.get((id, "waiting"), 0)
        return {"running": running, "suspended": found.get((id, "suspended"), 0)}

    return json_response({id: counts(id) for id in ids})


async def get_workflow(call: Call[Query, Body]) -> Response:
    """One workflow."""
    return json_response(wire.workflow_json(call.workflow))


async def list_runs(call: Call[models.RunsQuery, Body]) -> Response:
    """A page of runs, newest first."""
    query, storage = call.query, await call.app.opened()
    limit, offset = _window(query)
    runs, total = await storage.list_runs_json(
        call.workflow.id,
        limit=limit,
        offset=offset,
        status=query.status,
        resource_id=query.resource_id,
        from_date=query.from_date,
        to_date=query.to_date,
    )
    return json_response({"runs": runs, "total": total})


async def get_run(call: Call[models.DetailQuery, Body]) -> Response:
    """One run: where it stands, its result or error, its steps."""
    run = await _stored(call, nested=call.query.with_nested_workflows)
    return json_response(wire.run_json(run, call.query.fields))


async def delete_run(call: Call[Query, Body]) -> Response:
    """Forget a run."""
    if not await call.workflow.delete_workflow_run_by_id(call.named("runId")):
        raise RunNotFoundError(call.workflow.id, call.named("runId"))
    return json_response({"message": "Workflow run deleted"})


async def cancel(call: Call[Query, Body]) -> Response:
    """End a run as canceled; one that has ended stays as it is."""
    await (await call.run(call.named("runId"))).cancel()
    return json_response({"message": "Workflow run canceled"})


async def create_run(call: Call[NewRunQuery, models.CreateRun]) -> Response:
    """Store a pending run; with the id of one that is stored, nothing changes."""
    run = await _created(call, call.body.resource_id)
    return json_response({"runId": run.run_id})


async def start(call: Call[RunQuery, models.StartRun]) -> Response:
    """Start a run that was created; answers at once, when its input is known to fit."""
    run = await call.run(call.query.run_id)
    await run.start_async(*_input(call.body), per_step=call.body.per_step)
    return json_response({"message": "Workflow run started"})


async def start_async(call: StartCall) -> Response:
    """Start a run, a created or a new one; answers its result."""
    run = await _created(call, call.body.resource_id)
    return await _result(call, run, run.start(*_input(call.body), per_step=call.body.per_step))


async def stream(call: StartCall) -> Response:
    """Start a run, a created or a new one; answers its events as they come."""
    run, body = await _created(call, call.body.resource_id), call.body
    events = run.stream(*_input(body), per_step=body.per_step, close_on_suspend=body.close_on_suspend)
    return await _streamed(call, run, events)


async def observe(call: Call[models.ObserveQuery, Body]) -> Response:
    """All events of a run so far, then new ones, until it ends."""
    run = await call.run(call.query.run_id)
    return await _streamed(call, run, run.observe_stream(), skip=call.query.offset, ends=TERMINAL)


async def resume(call: ResumeCall) -> Response:
    """Go on with a suspended run; answers at once."""
    await (await call.run(call.query.run_id)).resume_async(**_fields(call.body))
    return json_response({"message": "Workflow run resumed"})


async def resume_no_wait(call: ResumeCall) -> Response:
    """Go on with a suspended run; answers its id at once."""
    run = await call.run(call.query.run_id)
    return json_response({"runId": await run.resume_async(**_fields(call.body))})


async def resume_async(call: ResumeCall) -> Response:
    """Go on with a suspended run; answers its result."""
    run = await call.run(call.query.run_id)
    return await _result(call, run, run.resume(**_fields(call.body)))


async def resume_stream(call: ResumeCall) -> Response:
    """Go on with a suspended run; answers its events as they come."""
    run = await call.run(call.query.run_id)
    return await _streamed(call, run, run.resume_stream(**_fields(call.body)))


async def restart(call: Call[RunQuery, models.Restart]) -> Response:
    """Go on with a run whose process is gone; answers at once."""
    await (await call.run(call.query.run_id)).restart_async(call.body.request_context)
    return json_response({"message": "Workflow run restarted"})


async def restart_async(call: Call[RunQuery, models.Restart]) -> Response:
    """Go on with a run whose process is gone; answers its result."""
    run = await call.run(call.query.run_id)
    return await _result(call, run, run.restart(call.body.request_context))


async def restart_all(call: Call[Query, Body]) -> Response:
    """Go on with all of a workflow's runs whose process is gone."""
    await call.app.opened()
    await take_over(call.app, call.workflow.id)
    return json_response({"message": "All active workflow runs restarted"})


async def restart_all_async(call: Call[Query, Body]) -> Response:
    """The same, under the name that other clients use."""
    return await restart_all(call)


async def time_travel(call: TravelCall) -> Response:
    """Run again from a step on; answers at once."""
    run = await call.run(call.query.run_id)
    await run.time_travel_stream(**_fields(call.body)).begun()
    return json_response({"message": "Workflow run time travel started"})


async def time_travel_async(call: TravelCall) -> Response:
    """Run again from a step on; answers the result."""
    run = await call.run(call.query.run_id)
    return await _result(call, run, run.time_travel(**_fields(call.body)))


async def time_travel_stream(call: TravelCall) -> Response:
    """Run again from a step on; answers the events as they come."""
    run = await call.run(call.query.run_id)
    return await _streamed(call, run, run.time_travel_stream(**_fields(call.body)))


def operations() -> list[Operation[Any, Any]]:
    """The table of the API, below its prefix."""
    all, one, run = "/workflows", "/workflows/{workflowId}", "/workflows/{workflowId}/runs/{runId}"
    message, result, event, id = models.Message, models.RunResult, models.RunEvent, models.RunCreated
    return [
        operation("GET", all, list_workflows, dict[str, models.WorkflowInfo]),
        operation("GET", f"{all}/run-counts", run_counts, dict[str, models.RunCounts]),
        operation("GET", one, get_workflow, models.WorkflowInfo),
        operation("GET", f"{one}/runs", list_runs, models.RunPage),
        operation("GET", run, get_run, models.RunDetail),
        operation("DELETE", run, delete_run, message),
        operation("POST", f"{run}/cancel", cancel, message),
        operation("POST", f"{one}/create-run", create_run, id),
        operation("POST", f"{one}/start", start, message),
        operation("POST", f"{one}/start-async", start_async, result),
        operation("POST", f"{one}/stream", stream, event),
        operation("GET", f"{one}/observe", observe, event),
        operation("POST", f"{one}/observe", observe, event),
        operation("POST", f"{one}/resume", resume, message),
        operation("POST", f"{one}/resume-no-wait", resume_no_wait, id),
        operation("POST", f"{one}/resume-async", resume_async, result),
        operation("POST", f"{one}/resume-stream", resume_stream, event),
        operation("POST", f"{one}/restart", restart, message),
        operation("POST", f"{one}/restart-async", restart_async, result),
        operation("POST", f"{one}/restart-all-active-workflow-runs", restart_all, message),
        operation("POST", f"{one}/restart-all-active-workflow-runs-async", restart_all_async, message),
        operation("POST", f"{one}/time-travel", time_travel, message),
        operation("POST", f"{one}/time-travel-async", time_travel_async, result),
        operation("POST", f"{one}/time-travel-stream", time_travel_stream, event),
        *functions.operations(),
    ]


_waiting: set[asyncio.Task[RunResult[Any]]] = set()


async def _result(
    call: Call[Any, Any], run: Run[Any], running: Coroutine[Any, Any, RunResult[Any]]
) -> Response:
    """The result of a run, which goes on whatever becomes of the request."""
    task = asyncio.ensure_future(running)
    _waiting.add(task)
    task.add_done_callback(_waiting.discard)
    patience = call.app.server.timeout
    await asyncio.wait({task}, timeout=patience)
    if task.done():
        return json_response(task.result().to_json())
    reason = f"Run {run.run_id!r} takes longer than {patience:g} seconds. It goes on: ask for it later."
    return json_response({"error": reason, "code": "RUN_TAKES_LONGER", "runId": run.run_id}, 504)


async def _streamed(
    call: Call[Any, Any],
    run: Run[Any],
    events: RunStream[Any],
    *,
    skip: int = 0,
    ends: Collection[str] = AT_REST,
) -> Response:
    """The events as they come. A client that takes a stream up again begins nothing again.

    `ends` are the statuses in which there is nothing more to wait for.
    """
    after = streams.last_event(call.request)
    if after is None or call.query.run_id is None:
        return await streams.respond(call.request, events, skip=skip)
    known = await call.app.storage.get_status(run.workflow_id, run.run_id)
    later = await call.app.storage.read_events(run.workflow_id, run.run_id, after=after)
    if known is not None and known[0] in ends and not later:
        return Response(status_code=204)  # tells an EventSource that there is nothing to come back for
    events.taken_up(after)
    return await streams.respond(call.request, events, after=after)


async def _created(call: Call[NewRunQuery, Any], resource_id: str | None) -> Run[Any]:
    return await call.workflow.create_run(run_id=call.query.run_id, resource_id=resource_id)


async def _stored(call: Call[Any, Any], *, nested: bool) -> StoredRun:
    workflow, run_id = call.workflow, call.named("runId")
    run = await in_detail(await call.app.opened(), workflow.id, run_id, nested=nested)
    if run is None:
        raise RunNotFoundError(workflow.id, run_id)
    return run


def _window(query: models.RunsQuery) -> tuple[int | None, int]:
    """How many runs are wanted (None for all), and how many newer ones are to be skipped."""
    if query.limit == "false":
        return None, 0
    size = query.per_page or query.limit or models.PAGE
    return size, (query.offset or 0) if query.page is None else query.page * size


def _input(body: models.StartRun) -> tuple[Any, Any, Any]:
    return body.input_data, body.initial_state, body.request_context


def _fields(body: Body) -> dict[str, Any]:
    return {name: getattr(body, name) for name in type(body).model_fields}
