"""The record of a foreach: how it begins, progresses, and what its items come to."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from flowctl import events
from flowctl.events import WorkflowEvent
from flowctl.execution import contexts
from flowctl.execution.data import typed_before
from flowctl.execution.outcome import Flow, Outcome, error_of
from flowctl.execution.paths import with_meta
from flowctl.execution.place import Place
from flowctl.execution.steps import Marked
from flowctl.execution.walk import Walk
from flowctl.graph import ForeachNode
from flowctl.snapshot import StepResult


def stops(outcome: Outcome) -> bool:
    """Whether no further item begins after this one: it ended the foreach, or was suspended just now."""
    status = outcome.record.status
    return outcome.bailed or status == "failed" or (status == "suspended" and not outcome.settled)


async def foreach_started(walk: Walk, place: Place, node: ForeachNode, now: int) -> Marked:
    """The record of the whole foreach as it begins; failed when what it got is no list."""
    key, data = place.scope.key(node.step.id), place.data
    before = walk.records.get(key)
    record = StepResult("running", payload=data, started_at=now)
    try:
        if not isinstance(data, list):
            raise TypeError(f"foreach needs a list, but the step before {key!r} gave {type(data).__name__}")
        if callable(node.concurrency):
            record = replace(record, metadata={"concurrency": await _limit(walk, place, node.concurrency)})
    except Exception as err:  # noqa: BLE001 - whatever the user's function raises fails the run, as data
        record = replace(record, status="failed", ended_at=now, error=error_of(err))
        return record, events.step_ended(walk.run_id, key, record), None
    if before is not None and before.status == "suspended":
        record = replace(
            record, started_at=before.started_at, resumed_at=now, resume_payload=walk.leg.resume_data
        )
    return record, [events.step_started(walk.run_id, key, record)], None


async def _limit(walk: Walk, place: Place, function: Callable[[Any], Any]) -> int:
    given = function(contexts.condition(walk, place.scope, typed_before(place)))
    given = await given if inspect.isawaitable(given) else given
    known = isinstance(given, int | float) and math.isfinite(given) and given >= 1
    return int(given) if known else 1


def limit_of(node: ForeachNode, begun: StepResult) -> int:
    """How many items run at a time: fixed, or as it was decided when the foreach began."""
    return (begun.metadata or {})["concurrency"] if callable(node.concurrency) else node.concurrency


def item_ended(walk: Walk, key: str, total: int, index: int, outcome: Outcome) -> Sequence[WorkflowEvent]:
    """The progress event of an item that has just ended."""
    record = outcome.record
    return [
        events.step_progressed(
            walk.run_id,
            key,
            completed=walk.items_done[key],
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
            record = begun.succeeded(flow.output, now)
        case "failed":
            record = replace(begun, status="failed", error=flow.error, ended_at=now)
        case "suspended":
            record = replace(
                begun, status="suspended", suspended_at=now, suspend_payload=_item_payload(walk, key, begun)
            )
        case "paused":
            record = replace(begun, status="paused")
        case _:
            record = replace(begun, status="canceled", ended_at=now)
    return record, events.step_ended(walk.run_id, key, record), None


def _item_payload(walk: Walk, key: str, begun: StepResult) -> Any:
    """What the first suspended item asks, with its index where there is room for it."""
    for index in range(len(begun.payload)):
        record = walk.records.get(f"{key}[{index}]")
        if record is not None and record.status == "suspended":
            return with_meta(record.suspend_payload, foreachIndex=index)
    return {}
