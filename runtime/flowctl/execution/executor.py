"""One leg of a run from its plan to its end: the table of contents of the execution."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import orjson

from flowctl import events, telemetry
from flowctl.events import WorkflowEvent
from flowctl.execution.callbacks import notify_ended, scope_info
from flowctl.execution.control_flow import walk_nodes
from flowctl.execution.ops import Memo
from flowctl.execution.outcome import Flow
from flowctl.execution.part import answer_of, scope_of
from flowctl.execution.plans import LARGEST_ANSWER_BYTES, LARGEST_EVENT_BYTES
from flowctl.execution.walk import Part, Walk
from flowctl.snapshot import RunError, RunStatus, Snapshot


async def execute_leg(walk: Walk) -> dict[str, Any]:
    """Walk the graph to the next stop and finish the leg; what its function answers, if it is one."""
    if not walk.leg.continues:
        await walk.ops.run("start", partial(_begin, walk), repeatable=True)
    flow = await walk_nodes(walk, walk.scope)
    return await walk.ops.run("finish", partial(_finish, walk, flow), repeatable=True)


async def execute_part(walk: Walk, part: Part, payload: Any) -> Memo:
    """Walk a nested workflow that is a function of its own to the next stop; what its parent is answered.

    A failure's answer is in storage then, so its function may fail: a parent finds all of it there.
    """
    scope = scope_of(walk, part, payload)
    flow = await walk_nodes(walk, scope)
    answer = answer_of(walk, part, flow)
    if flow.kind == "failed":
        await walk.ops.run(f"{part.op}.failure", partial(_keep, walk, {"answer": answer}))
        return answer
    if len(orjson.dumps(answer.get("output"))) <= LARGEST_EVENT_BYTES:
        return answer
    await walk.ops.run(f"{part.op}.output", partial(_keep, walk, {"output": answer.pop("output")}))
    return answer | {"isKept": True}


def end_of(run: Snapshot) -> Memo:
    """What a run's function answers at its end; a result that is too large for an engine stays in storage."""
    shown: Memo = {"status": run.status, "runId": run.run_id}
    if run.error is not None:
        shown["error"] = run.error.to_json()
    if run.status == "success" and len(orjson.dumps(run.result)) <= LARGEST_ANSWER_BYTES:
        shown["result"] = run.result
    return shown


async def _keep(walk: Walk, kept: Memo) -> Memo:
    """Leave in storage what is too large to be answered, or is no success's answer."""
    walk.kept = kept
    await walk.commit()
    return {}


async def _begin(walk: Walk) -> dict[str, Any]:
    started = events.run_started(walk.run_id, walk.scope.workflow.id)
    await walk.commit(status=walk.leg.snapshot.status, events=[("start", started)])
    telemetry.leg_begun(walk.name, queued=walk.env.queued_at, began=walk.journal.now())
    return {}


async def _finish(walk: Walk, flow: Flow) -> dict[str, Any]:
    ended_before = await walk.journal.ended()
    if ended_before is not None and ended_before != "canceled":
        return {"status": ended_before, "runId": walk.run_id}
    if ended_before is not None or (walk.canceled and not walk.aborted):
        return _canceled(walk)
    status, error = _status(walk, flow), flow.error
    result = flow.output if status == "success" else None
    info = partial(scope_info, walk, walk.scope, status, result, error)
    await notify_ended(walk.scope.workflow, status, info)
    snapshot = replace(walk.snapshot(status), result=result, error=error)
    ending, is_shown = _ending(walk, status, result, error), walk.is_persisted(status)
    if not await walk.journal.commit(snapshot, records={}, events=ending, is_shown=is_shown):
        return _canceled(walk)
    _tell(walk, status, error)
    return end_of(snapshot) if walk.journal.repeats else {}


def _canceled(walk: Walk) -> dict[str, Any]:
    _tell(walk, "canceled", None)
    return {"status": "canceled", "runId": walk.run_id}


def _tell(walk: Walk, status: RunStatus, error: RunError | None) -> None:
    telemetry.leg_ended(walk.name, status, error, began=_beginning(walk), ended=walk.journal.now())


def _beginning(walk: Walk) -> int:
    """When the first step of this leg began."""
    before = walk.leg.snapshot.records
    own = [record for key, record in walk.records.items() if before.get(key) != record]
    times = [moment for record in own if (moment := record.resumed_at or record.started_at)]
    return min(times, default=walk.journal.now())


def _status(walk: Walk, flow: Flow) -> RunStatus:
    if walk.canceled or flow.kind == "canceled":
        return "canceled"
    names: dict[str, RunStatus] = {"next": "success", "bailed": "success"}
    return names.get(flow.kind, flow.kind)  # pyright: ignore[reportReturnType] - the other kinds are statuses


def _ending(
    walk: Walk, status: RunStatus, result: Any, error: RunError | None
) -> list[tuple[str, WorkflowEvent]]:
    if status == "canceled":
        return [("canceled", events.run_canceled(walk.run_id))]
    finished = ("finish", events.run_finished(walk.run_id, status=status, result=result, error=error))
    paused = [("paused", events.run_paused(walk.run_id))] if status == "paused" else []
    return [*paused, finished]
