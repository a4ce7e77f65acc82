"""What a run's end tells others: the events of it, and what the steps that invoked it get. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flowctl.engine.protocol import CANCELLED, FAILED, FINISHED, RESERVED, Event, parse_event
from flowctl.engine.store import RunRow

SCHEDULED_RUN, COMPLETED_RUN, FAILED_RUN, CANCELLED_RUN = "Scheduled", "Completed", "Failed", "Cancelled"
RUN_STATUSES = (SCHEDULED_RUN, "Running", COMPLETED_RUN, FAILED_RUN, CANCELLED_RUN)
_OF_ITS_OWN = {FAILED_RUN: FAILED, CANCELLED_RUN: CANCELLED}


def made(name: str, data: Mapping[str, Any], now: int, **more: Any) -> Event:
    """An event of the engine's own."""
    return parse_event({"name": name, "data": data, "ts": now, **more}, now=now)


def end_events(run: RunRow, status: str, output: Any, now: int) -> Iterator[Event]:
    """The events that a run has ended: one for what began it, and one for each step that invoked it.

    A run that such an event began makes none, or functions that hear of all ends would start themselves.
    """
    facts = {"function_id": run.slug, "run_id": run.run_id, "events": [_as_sent(e) for e in run.events]}
    facts |= _outcome(status, output) | {RESERVED: {"status": status}}
    for n, event in enumerate(run.events):
        invoked_by = correlation_id(event)
        if event["name"] in {FAILED, FINISHED} or (n > 0 and invoked_by is None):
            continue
        data = facts | {"event": event} | ({"correlation_id": invoked_by} if invoked_by else {})
        meta = {"meta": event.get("meta")}
        yield made(FINISHED, data, now, **meta)
        if name := _OF_ITS_OWN.get(status):
            yield made(name, data, now, id=run.run_id, **meta)


def invoker_answer(status: str, output: Any) -> dict[str, Any]:
    """The step that invoked a run, by its end."""
    if status == CANCELLED_RUN:
        return {"error": {"name": "Error", "message": "The invoked function was cancelled."}}
    return {"error": _shown_error(output)} if status == FAILED_RUN else {"data": output}


def engine_failure(run_id: str, error: BaseException) -> dict[str, Any]:
    """The output of a run that the engine itself could not go on with."""
    cause = f"{type(error).__name__}: {error}"
    message = f"The engine failed in run {run_id}, by no fault of the app's: {cause}. Its log tells where."
    return {"name": "Error", "message": message}


def correlation_id(event: Mapping[str, Any]) -> str | None:
    """Which step an event invokes for; None for other events."""
    reserved = event["data"].get(RESERVED)
    found = reserved.get("correlation_id") if isinstance(reserved, Mapping) else None
    return found if isinstance(found, str) and found else None


def _outcome(status: str, output: Any) -> dict[str, Any]:
    if status == CANCELLED_RUN:
        return {}
    error = {"error": _shown_error(output)} if status == FAILED_RUN else {}
    return error if output is None else error | {"result": output}


def _as_sent(event: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in event.items() if key != "user" or value}


def _shown_error(output: Any) -> dict[str, Any]:
    error = output if isinstance(output, dict) else {"name": "Error", "message": str(output)}
    shown = {key: value for key, value in error.items() if key != "code"}
    return {"error": "invalid status code: 500"} | shown
