"""The record of a foreach: how it begins, progresses, and what its items come to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from flowctl import events
from flowctl.events import WorkflowEvent
from flowctl.execution.outcome import Flow, Outcome
from flowctl.execution.steps import Marked
from flowctl.execution.walk import Walk
from flowctl.snapshot import RunError, StepResult


def stops(outcome: Outcome) -> bool:
    """Whether no further item begins after this one."""
    return outcome.bailed or outcome.record.status == "failed"


async def foreach_started(walk: Walk, key: str, data: Any, now: int) -> Marked:
    """The record of the whole foreach as it begins; failed when what it got is no list."""
    before = walk.records.get(key)
    record = StepResult("running", payload=data, started_at=now)
    if not isinstance(data, list):
        message = f"foreach needs a list, but the step before {key!r} gave {type(data).__name__}"
        record = replace(record, status="failed", ended_at=now, error=RunError("TypeError", message))
        return record, events.step_ended(walk.run_id, key, record), None
    if before is not None and before.status == "suspended":
        record = replace(
            record, started_at=before.started_at, resumed_at=now, resume_payload=walk.leg.resume_data
        )
    return record, [events.step_started(walk.run_id, key, record, walk.journal.new_id())], None


def item_ended(walk: Walk, key: str, total: int, index: int, outcome: Outcome) -> Sequence[WorkflowEvent]:
    """The progress event of an item that has just ended."""
    done = sum(
        walk.records[item].status == "success"
        for i in range(total)
        if (item := f"{key}[{i}]") in walk.records
    )
    record = outcome.record
    return [
        events.step_progressed(
            walk.run_id,
            key,
            completed=done,
            total=total,
            index=index,
            status=record.status,
            output=record.output,
        )
    ]


def foreach_flow(outcomes: Sequence[Outcome]) -> Flow:
    """What the items that ran come to, together."""
    failed = next((o for o in outcomes if o.record.status == "failed"), None)
    if failed is not None:
        return Flow("failed", error=failed.record.error)
    bailed = next((o for o in outcomes if o.bailed), None)
    if bailed is not None:
        return Flow("bailed", bailed.record.output)
    for kind in ("suspended", "canceled", "paused"):
        if any(o.record.status == kind for o in outcomes):
            return Flow(kind)
    return Flow("next", [o.record.output for o in outcomes])


async def foreach_ended(walk: Walk, key: str, begun: StepResult, flow: Flow, now: int) -> Marked:
    """The record of the whole foreach at its end."""
    match flow.kind:
        case "next" | "bailed":
            record = replace(begun, status="success", output=flow.output, ended_at=now)
        case "failed":
            record = replace(begun, status="failed", error=flow.error, ended_at=now)
        case "suspended":
            record = replace(
                begun, status="suspended", suspended_at=now, suspend_payload=_item_payload(walk, key)
            )
        case _:
            record = replace(begun, status="canceled", ended_at=now)
    return record, events.step_ended(walk.run_id, key, record), None


def _item_payload(walk: Walk, key: str) -> dict[str, Any]:
    prefix = f"{key}["
    waiting = (r for k, r in walk.records.items() if k.startswith(prefix) and k.endswith("]"))
    first = next((r for r in waiting if r.status == "suspended"), None)
    return dict(first.suspend_payload or {}) if first else {}
