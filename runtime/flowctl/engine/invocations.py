"""The events that start functions by their ids. Pure; called by `ledger`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from flowctl.engine.protocol import INVOKED, RESERVED, Event, parse_event, stable_id
from flowctl.engine.store import RunRow
from flowctl.engine.turn import Invoke


@dataclass(frozen=True, slots=True)
class Invocation:
    """The event that was made to invoke a function, and why the function was not started, if so."""

    event_id: str
    refusal: str | None


_NOBODY = {"expire": 0, "gid": "", "name": "", "source_app_id": "", "source_fn_id": "", "source_fn_v": 0}


def invocation(slug: str, payload: Mapping[str, Any], *, now: int) -> Event:
    """Of somebody who is no run; raises InvalidEventError for a payload that is no event."""
    return _event(payload, {**_NOBODY, "fn_id": slug}, now)


def step_invocation(run: RunRow, app_id: str, asked: Invoke, *, now: int) -> Event:
    """Of a run's step, which the event's correlation id names; raises InvalidEventError, too."""
    caller = {
        "fn_id": asked.slug,
        "correlation_id": f"{run.run_id}.{asked.step_id}",
        "expire": asked.until,
        "gid": stable_id("group", run.run_id, asked.step_id),
        "name": asked.name,
        "source_app_id": app_id,
        "source_fn_id": run.function_id,
        "source_fn_v": 1,
    }
    return _event({**asked.payload, "id": None}, caller, now)


def _event(payload: Mapping[str, Any], about: Mapping[str, Any], now: int) -> Event:
    event = parse_event({**payload, "name": INVOKED}, now=now)
    return replace(event, data={**event.data, RESERVED: about})
