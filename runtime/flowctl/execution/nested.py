"""The record of a nested workflow: how it begins and what its end makes of it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from flowctl import events
from flowctl.events import WorkflowEvent
from flowctl.execution.outcome import Flow, Outcome
from flowctl.execution.steps import Call, Marked
from flowctl.execution.walk import Walk
from flowctl.snapshot import StepResult


async def nested_started(walk: Walk, call: Call, before: StepResult | None, now: int) -> Marked:
    """The record of a nested workflow as it begins, or goes on after a suspension."""
    metadata = {"iterationCount": call.iteration} if call.iteration else None
    record = StepResult("running", payload=call.payload, started_at=now, metadata=metadata)
    if before is not None and before.status == "suspended":
        record = replace(record, started_at=before.started_at, resumed_at=now)
    emitted = (
        [events.step_started(walk.run_id, call.key, record, walk.journal.new_id())] if call.announced else []
    )
    return record, emitted, None


async def nested_ended(walk: Walk, call: Call, begun: StepResult, flow: Flow, now: int) -> Marked:
    """The record of a nested workflow at its end, and whether a loop around it goes on."""
    again: bool | None = None
    match flow.kind:
        case "next" | "bailed":
            record = replace(begun, status="success", output=flow.output, ended_at=now)
            if call.decide is not None:
                decided = call.decide(flow.output)
                again = bool(await decided if inspect.isawaitable(decided) else decided)
        case "failed":
            record = replace(begun, status="failed", error=flow.error, ended_at=now)
        case "suspended":
            record = replace(
                begun, status="suspended", suspended_at=now, suspend_payload=_inner_payload(walk, call)
            )
        case "paused":
            record = replace(begun, status="paused")
        case _:
            record = replace(begun, status="canceled", ended_at=now)
    emitted: Sequence[WorkflowEvent] = (
        events.step_ended(walk.run_id, call.key, record) if call.announced else []
    )
    if call.on_end is not None:
        emitted = call.on_end(Outcome(record))
    return record, emitted, again


def _inner_payload(walk: Walk, call: Call) -> dict[str, Any]:
    prefix = f"{call.key}/"
    for key, record in walk.records.items():
        if key.startswith(prefix) and record.status == "suspended":
            id = key[len(prefix) :].partition("/")[0].partition("[")[0]
            payload = dict(record.suspend_payload or {})
            inner = payload.pop("__workflow_meta", {}).get("path", [])
            return payload | {"__workflow_meta": {"runId": walk.run_id, "path": [id, *inner]}}
    return {}
