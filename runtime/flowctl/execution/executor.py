"""One leg of a run from its plan to its end: the table of contents of the execution."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from flowctl import events
from flowctl.execution.control_flow import walk_nodes
from flowctl.execution.outcome import Flow
from flowctl.execution.walk import Walk
from flowctl.schema import parse_leniently
from flowctl.snapshot import RunError, RunStatus, StepResult


async def execute_leg(walk: Walk) -> dict[str, Any]:
    """Walk the graph to the next stop and finish the leg: `{"status": …, "result"?, "error"?}`."""
    calls_back = walk.scope.workflow.options.on_start is not None
    await walk.ops.run("start", partial(_begin, walk), repeatable=not calls_back)
    flow = await walk_nodes(walk, walk.scope)
    return await walk.ops.run("finish", partial(_finish, walk, flow), repeatable=True)


async def _begin(walk: Walk) -> dict[str, Any]:
    started = events.run_started(walk.run_id, walk.scope.workflow.id)
    await walk.commit(events=[("start", started)])
    callback = walk.scope.workflow.options.on_start
    if callback is not None and walk.leg.kind == "start":
        await _awaited(callback(_info(walk, "running", None, None)))
    return {}


async def _finish(walk: Walk, flow: Flow) -> dict[str, Any]:
    ended_before = await walk.journal.ended()
    if ended_before is not None:
        return {"status": ended_before, "runId": walk.run_id}
    status, error = _status(walk, flow), flow.error
    result = flow.output if status == "success" else None
    await _call_back(walk, status, result, error)
    ended = [("finish", events.run_finished(walk.run_id, status=status, result=result, error=error))]
    if status == "paused":
        ended.insert(0, ("paused", events.run_paused(walk.run_id)))
    snapshot = replace(walk.snapshot(status), result=result, error=error)
    if status == "canceled":
        return {"status": status}
    stored = await walk.journal.commit(snapshot, records={}, events=ended)
    if not stored:
        return {"status": "canceled"}
    shown: dict[str, Any] = {"status": status, "runId": walk.run_id}
    if status == "success":
        shown["result"] = result
    return shown | ({"error": error.to_json()} if error else {})


def _status(walk: Walk, flow: Flow) -> RunStatus:
    if walk.canceled or flow.kind == "canceled":
        return "canceled"
    names: dict[str, RunStatus] = {"next": "success", "bailed": "success"}
    return names.get(flow.kind, flow.kind)  # pyright: ignore[reportReturnType] - the other kinds are statuses


async def _call_back(walk: Walk, status: RunStatus, result: Any, error: RunError | None) -> None:
    options = walk.scope.workflow.options
    wanted = [
        options.on_finish if status != "paused" else None,
        options.on_error if status == "failed" else None,
    ]
    for callback in wanted:
        if callback is None:
            continue
        try:
            await _awaited(callback(_info(walk, status, result, error)))
        except Exception:
            walk.env.logger.exception("A callback of workflow %r raised.", walk.scope.workflow.id)


async def _awaited(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What `on_start`, `on_finish` and `on_error` are given."""

    status: RunStatus
    result: Any
    error: RunError | None
    steps: dict[str, StepResult]
    run_id: str
    workflow_id: str
    resource_id: str | None
    state: dict[str, Any]
    request_context: Any
    logger: Any
    app: Any
    get_init_data: Callable[[], Any]


def _info(walk: Walk, status: RunStatus, result: Any, error: RunError | None) -> RunInfo:
    workflow = walk.scope.workflow
    return RunInfo(
        status=status,
        result=result,
        error=error,
        steps={key: record for key, record in walk.records.items() if "/" not in key and "[" not in key},
        run_id=walk.run_id,
        workflow_id=workflow.id,
        resource_id=walk.env.resource_id,
        state=dict(walk.state),
        request_context=walk.request_context,
        logger=walk.env.logger,
        app=walk.env.app,
        get_init_data=lambda: parse_leniently(workflow.schemas.input, walk.scope.input),
    )
