"""Sleeps: until when, and the records of waiting and waking."""

from __future__ import annotations

import inspect
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from flowctl import events
from flowctl.execution import contexts
from flowctl.execution.data import typed_before
from flowctl.execution.outcome import Flow, error_of
from flowctl.execution.place import Place, flow_of
from flowctl.execution.steps import Marked, mark
from flowctl.execution.walk import Walk
from flowctl.graph import SleepNode, SleepUntilNode
from flowctl.snapshot import StepResult


async def sleep(walk: Walk, place: Place, node: SleepNode | SleepUntilNode) -> Flow:
    """Wait, durably; a leg that goes on in the middle waits for what is left, if anything is."""
    key, op = place.scope.key(node.id), place.op(node.id)
    if ended := walk.ended_before(key):
        return flow_of(ended)
    record = walk.records.get(key)
    if record is None or record.status != "waiting" or walk.leg.kind == "start":
        begun = await mark(
            walk, f"{op}.wait", key, place.data, partial(_sleep_started, walk, place, node, key)
        )
        record = begun.record
    if record.status == "failed":
        return Flow("failed", error=record.error)
    await walk.ops.sleep(op, (record.metadata or {}).get("until", 0))
    await mark(walk, f"{op}.done", key, place.data, partial(_sleep_ended, walk, key, record, place.data))
    return Flow("next", place.data)


async def _sleep_started(
    walk: Walk, place: Place, node: SleepNode | SleepUntilNode, key: str, now: int
) -> Marked:
    record = StepResult("waiting", payload=place.data, started_at=now)
    try:
        until = await _wake_time(walk, place, node, now)
    except Exception as err:  # noqa: BLE001 - whatever the user's function raises fails the run, as data
        record = replace(record, status="failed", error=error_of(err), ended_at=now)
        return record, events.step_ended(walk.run_id, key, record), None
    record = replace(record, metadata={"until": until})
    return record, [events.step_waiting(walk.run_id, key, record)], None


async def _sleep_ended(walk: Walk, key: str, begun: StepResult, data: Any, now: int) -> Marked:
    record = replace(begun, status="success", output=data, ended_at=now)
    return record, events.step_ended(walk.run_id, key, record), None


async def _wake_time(walk: Walk, place: Place, node: SleepNode | SleepUntilNode, now: int) -> int:
    value: Any = node.duration if isinstance(node, SleepNode) else node.date
    if callable(value):
        value = value(contexts.condition(walk, place.scope, typed_before(place)))
        value = await value if inspect.isawaitable(value) else value
    if isinstance(node, SleepUntilNode):
        return now if value is None else _millis(value)
    if isinstance(value, timedelta):
        return now + int(value.total_seconds() * 1000)
    return now + max(0, int(value or 0))


def _millis(date: Any) -> int:
    known = datetime.fromisoformat(date) if isinstance(date, str) else date
    return int(known.timestamp() * 1000)
