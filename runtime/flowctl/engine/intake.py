"""What senders post to the event API: one event or a list, checked as the Inngest server does. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson

from flowctl.engine.protocol import (
    INTERNAL_PREFIX,
    INVOKED,
    RESERVED,
    Event,
    InvalidEventError,
    parse_event,
    parsed_json,
    seeded_ulid,
)

FIRST_MOMENT, LAST_MOMENT = 315_532_800_000, 4_102_444_800_000
MAX_EVENTS = 5_000
MAX_EVENT_BYTES = 3 * 2**20


def parse_events(body: bytes, *, seed: str, now: int) -> list[Event]:
    """The events of a request; raises InvalidEventError for the first one that is none.

    With a seed (`x-inngest-event-id-seed`) their ids are the same when the request is repeated.
    """
    return [
        _received(parse_event(raw, now=now, internal_id=seeded_ulid(seed, index)))
        for index, raw in enumerate(_sent(body))
    ]


def _received(event: Event) -> Event:
    """An event as it is kept: what is reserved stays in an invocation alone."""
    if event.name.lower().startswith(INTERNAL_PREFIX) and event.name != INVOKED:
        raise InvalidEventError(f"event name is reserved for internal use: {event.name}")
    if event.ts < FIRST_MOMENT:
        raise InvalidEventError("timestamp is before Jan 1, 1980")
    if event.ts > LAST_MOMENT:
        raise InvalidEventError("timestamp is after Jan 1, 2100")
    if RESERVED not in event.data or event.name == INVOKED:
        return event
    return replace(event, data={key: value for key, value in event.data.items() if key != RESERVED})


def _sent(body: bytes) -> list[Any]:
    try:
        sent = parsed_json(body or b"[]")
    except ValueError as err:
        raise InvalidEventError(f"invalid JSON: {err}") from err
    if isinstance(sent, dict):
        _check_size(len(body))
        return [sent]
    if not isinstance(sent, list):
        raise InvalidEventError("Request body must contain an event object or an array of event objects")
    if len(sent) > MAX_EVENTS:
        raise InvalidEventError(f"A request holds {MAX_EVENTS} events at most; this one has {len(sent)}")
    if len(body) > MAX_EVENT_BYTES:
        for raw in sent:
            _check_size(len(orjson.dumps(raw)))
    return sent


def _check_size(size: int) -> None:
    if size > MAX_EVENT_BYTES:
        raise InvalidEventError(
            f"Event is over the max size: Max {MAX_EVENT_BYTES} bytes / Size {size} bytes"
        )
