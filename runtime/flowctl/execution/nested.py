"""A nested workflow as a step of its parent: what it is given, its record, its callbacks."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from flowctl import events
from flowctl.errors import ValidationError
from flowctl.events import WorkflowEvent
from flowctl.execution.callbacks import notify_ended, notify_started, scope_info
from flowctl.execution.outcome import Flow, Outcome, error_of
from flowctl.execution.paths import META, with_meta
from flowctl.execution.steps import Call, Marked
from flowctl.execution.walk import Scope, Walk
from flowctl.schema import parse, to_json
from flowctl.snapshot import StepResult

if TYPE_CHECKING:
    from flowctl.snapshot import RunStatus
    from flowctl.workflow import Workflow


def nested_scope(call: Call, workflow: Workflow[Any, Any]) -> Scope:
    """The nested workflow with its input, which has its schema's defaults; one that does not fit as it is."""
    data = call.payload
    if call.scope.validates:
        try:
            data = to_json(parse(workflow.schemas.input, data, what=""))
        except ValidationError:
            data = call.payload
    return Scope(workflow, f"{call.key}/", f"{call.op}/", data, call.scope.validates)


async def nested_started(walk: Walk, call: Call, scope: Scope, before: StepResult | None, now: int) -> Marked:
    """The record of a nested workflow as it begins, or goes on; failed when its input does not fit."""
    metadata = {"iterationCount": call.iteration} if call.iteration else None
    record = StepResult("running", payload=call.payload, started_at=now, metadata=metadata)
    if before is not None and before.status in {"suspended", "paused"}:
        record = replace(record, started_at=before.started_at, resumed_at=now)
    else:
        try:
            _check_input(scope)
            await notify_started(scope.workflow, partial(scope_info, walk, scope, "running"))
        except Exception as err:  # noqa: BLE001 - data that does not fit and user code fail the step, as data
            record = replace(record, status="failed", error=error_of(err), ended_at=now)
            return record, _ending(walk, call, record), None
    started = events.step_started(walk.run_id, call.key, record)
    return record, [started] if call.announced else [], None


def _check_input(scope: Scope) -> None:
    if scope.validates:
        parse(scope.workflow.schemas.input, to_json(scope.input), what="Step input validation failed")


async def nested_ended(
    walk: Walk, call: Call, scope: Scope, now: int, *, begun: StepResult, flow: Flow
) -> Marked:
    """The record of a nested workflow at its end, and whether a loop around it goes on."""
    flow = await _whole(walk, call, flow)
    record, again = _ended(walk, call, begun, flow, now), None
    if record.status == "success" and call.decide is not None:
        try:
            decided = call.decide(flow.output)
            again = bool(await decided if inspect.isawaitable(decided) else decided)
        except Exception as err:  # noqa: BLE001 - a loop condition that raises fails the run with its error
            record = replace(record, status="failed", output=None, error=error_of(err))
    status = cast("RunStatus", record.status)
    info = partial(scope_info, walk, scope, status, record.output, record.error)
    await notify_ended(scope.workflow, status, info)
    return record, _ending(walk, call, record), again


async def _whole(walk: Walk, call: Call, flow: Flow) -> Flow:
    """The flow with its output, which is in storage when it was too large to be answered."""
    if not flow.is_kept:
        return flow
    kept = await walk.finished(f"{call.op}.inside", call.key) or {}
    return replace(flow, output=kept.get("output"), is_kept=False)


def _ended(walk: Walk, call: Call, begun: StepResult, flow: Flow, now: int) -> StepResult:
    match flow.kind:
        case "next" | "bailed":
            return begun.succeeded(flow.output, now)
        case "failed":
            return replace(begun, status="failed", error=flow.error, ended_at=now)
        case "suspended":
            payload = _inner_payload(walk, call)
            return replace(begun, status="suspended", suspended_at=now, suspend_payload=payload)
        case "paused":
            return replace(begun, status="paused")
        case _:
            return replace(begun, status="canceled", ended_at=now)


def _ending(walk: Walk, call: Call, record: StepResult) -> Sequence[WorkflowEvent]:
    if call.on_end is not None:
        return call.on_end(Outcome(record))
    return events.step_ended(walk.run_id, call.key, record) if call.announced else []


def _inner_payload(walk: Walk, call: Call) -> Any:
    """What the first suspended step inside asks, with the path to it."""
    prefix = f"{call.key}/"
    for key, record in walk.records.items():
        if key.startswith(prefix) and record.status == "suspended":
            id = key[len(prefix) :].partition("/")[0].partition("[")[0]
            payload = record.suspend_payload
            inner = payload.get(META, {}).get("path", []) if isinstance(payload, dict) else []
            return with_meta(payload, runId=walk.run_id, path=[id, *inner])
    return {}
