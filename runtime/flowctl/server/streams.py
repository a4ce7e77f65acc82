"""Run events as a response: JSON split by 0x1E, NDJSON, or SSE that can be taken up again.

Open streams end when the server stops: a client takes the stream up again by `observe`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from flowctl.errors import Issue, RunNotFoundError, ValidationError
from flowctl.events import WorkflowEvent
from flowctl.server import wire
from flowctl.stream import RunStream

T = TypeVar("T")

RECORDS, NDJSON, SSE = "text/plain", "application/x-ndjson", "text/event-stream"
BEAT_SECONDS = 15.0
_NO_BUFFERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


@dataclass(frozen=True, slots=True)
class Format:
    """How events are written: around each one, and whether a sign of life may stand between them."""

    media_type: str
    end: bytes
    numbered: bool = False

    def write(self, number: int, event: WorkflowEvent) -> bytes:
        """The bytes of one event."""
        head = b"id: %d\ndata: " % number if self.numbered else b""
        return head + wire.dump(event.to_json()) + self.end


FORMATS = {
    SSE: Format(SSE, b"\n\n", numbered=True),
    NDJSON: Format(NDJSON, b"\n"),
    RECORDS: Format(RECORDS, b"\x1e"),
}


class OpenStreams:
    """The streams of a server that is up; once closed, those that are open end and new ones end at once."""

    def __init__(self) -> None:
        self._closed = False
        self._open: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()

    def close(self) -> None:
        """End them; safe from any thread and from a signal handler."""
        self._closed = True
        for loop, ending in list(self._open):
            if not loop.is_closed():
                loop.call_soon_threadsafe(ending.set)

    def reopen(self) -> None:
        """Take streams again: the server is started once more."""
        self._closed = False

    async def until_closed(self, items: AsyncIterator[T], *, beat: float) -> AsyncIterator[T | None]:
        """Items as they come, None when there was none for `beat` seconds; ends early when closed."""
        ending = asyncio.Event()
        entry = (asyncio.get_running_loop(), ending)
        self._open.add(entry)
        closed = asyncio.ensure_future(ending.wait())
        following: asyncio.Future[T] | None = None
        try:
            while not (self._closed or closed.done()):
                following = following or asyncio.ensure_future(anext(items))
                await asyncio.wait({following, closed}, timeout=beat, return_when="FIRST_COMPLETED")
                if not following.done():
                    yield None
                    continue
                try:
                    item = following.result()
                except StopAsyncIteration:
                    return
                following = None
                yield item
        finally:
            self._open.discard(entry)
            closed.cancel()
            if following is not None:
                following.cancel()


def open_streams(request: Request) -> OpenStreams:
    """Those of the server that the request came to."""
    return request.app.state.streams


def wanted_format(request: Request) -> Format:
    """What the client asks for by `Accept`."""
    accept = request.headers.get("accept", "")
    return next((form for name, form in FORMATS.items() if name in accept), FORMATS[RECORDS])


def last_event(request: Request) -> int | None:
    """The number of the last event that the client has, when it takes a stream up again."""
    text = request.headers.get("last-event-id")
    if text is None or (text.isdecimal() and len(text) < 19):
        return None if text is None else int(text)
    raise ValidationError("Invalid headers", [Issue("Last-Event-ID", "Input should be an event's number")])


async def respond(
    request: Request, events: RunStream[Any], *, after: int | None = None, skip: int = 0
) -> Response:
    """Begin (so that a refusal is an error answer), then pass the events on.

    Server-sent events begin with the number of the event before the first, so that a stream can be taken up
    that broke before any; the comment `end` says that there is no more, unlike a server that stops.
    """
    begun = await events.begun()
    form, streams, complete = wanted_format(request), open_streams(request), False

    async def to_the_end() -> AsyncIterator[tuple[int, WorkflowEvent]]:
        nonlocal complete
        with contextlib.suppress(RunNotFoundError):  # deleted meanwhile
            async for item in events.numbered(after):
                yield item
        complete = True

    async def chunks() -> AsyncIterator[bytes]:
        skipped = 0
        if form.numbered:
            yield b"id: %d\n\n" % (begun if after is None else after)
        async for item in streams.until_closed(to_the_end(), beat=BEAT_SECONDS):
            if item is None:
                if form.numbered:
                    yield b": still here\n\n"
            elif skipped < skip:
                skipped += 1
            else:
                yield form.write(*item)
        if form.numbered and complete:
            yield b": end\n\n"

    return StreamingResponse(chunks(), media_type=form.media_type, headers=_NO_BUFFERS)
