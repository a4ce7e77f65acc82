"""HTTP to one server: calls, event streams, and refusals as the errors they were on the other side."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import httpx

from flowctl.errors import FlowctlError, Issue, NotFoundError, RunStateError, ValidationError
from flowctl.events import WorkflowEvent

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
SILENCE_SECONDS = 50.0
"""A stream says something at least every 15 seconds."""
TAKE_UP_SECONDS = 30.0
PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 3.0
COMING_BACK = frozenset({502, 503, 504})
LAST = ": end"
AS_LONG_AS_THE_RUN = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS, read=None)
WHILE_IT_SPEAKS = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS, read=SILENCE_SECONDS)


class ServerUnreachableError(FlowctlError):
    """Nothing answers at the URL."""

    code = "SERVER_UNREACHABLE"
    exit_code: ClassVar[int] = 4


class NotAServerError(FlowctlError):
    """Something answers at the URL, but it is no flowctl server."""

    code = "NOT_A_SERVER"
    exit_code: ClassVar[int] = 4


class ApiError(FlowctlError):
    """The server refused a call for a reason that has no class of its own; `status` is HTTP's."""

    code = "REFUSED"
    exit_code: ClassVar[int] = 2

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(slots=True)
class Place:
    """How far a stream of server-sent events has come, over several answers."""

    seen: str | None = None
    is_last: bool = False
    broken: Exception = field(default_factory=lambda: httpx.RemoteProtocolError("the stream ended early"))
    lost_at: float | None = None
    pauses: int = 0

    def headers(self) -> dict[str, str]:
        """What tells the server where to go on."""
        return {} if self.seen is None else {"last-event-id": self.seen}

    def take(self, line: str) -> str | None:
        """Note a line; answers the data that it carries, if any."""
        name, _, value = line.partition(": ")
        if name in {"data", ""}:  # an event, or a sign of life
            self.lost_at, self.pauses = None, 0
        if name == "id":
            self.seen = value
        self.is_last = self.is_last or line == LAST
        return value if name == "data" else None

    async def pause(self) -> bool:
        """Wait a little before the next try; False when the server was away for too long."""
        self.lost_at = self.lost_at or time.monotonic()
        if time.monotonic() - self.lost_at > TAKE_UP_SECONDS:
            return False
        await asyncio.sleep(min(PAUSE_SECONDS * 2**self.pauses, LONGEST_PAUSE_SECONDS))
        self.pauses += 1
        return True


class Connection:
    """The connections to one server's API."""

    def __init__(
        self, url: str, headers: Mapping[str, str], transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self.url = url.rstrip("/")
        self._http = httpx.AsyncClient(
            base_url=f"{self.url}/api",
            headers=headers,
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            transport=transport,
        )

    async def close(self) -> None:
        """Drop the connections."""
        await self._http.aclose()

    async def call(
        self, method: str, path: str, body: Any, query: Mapping[str, Any], *, waits: bool = False
    ) -> Any:
        """The JSON answer to a call; one that `waits` for a run has no deadline."""
        timeout = AS_LONG_AS_THE_RUN if waits else httpx.USE_CLIENT_DEFAULT
        try:
            answer = await self._http.request(
                method, path, json=_given(body), params=_given(query), timeout=timeout
            )
        except httpx.TransportError as err:
            raise self._unreachable(err) from err
        if answer.is_error:
            raise refusal(answer.status_code, answer.content)
        try:
            return answer.json()
        except ValueError as err:
            raise NotAServerError(f"{self.url} is no flowctl server: its answer is no JSON.") from err

    async def events(self, path: str, body: Any, query: Mapping[str, Any]) -> AsyncIterator[WorkflowEvent]:
        """The events of a streaming call, as they come.

        A stream that breaks, or that its server ends because it stops, is taken up where it was: nothing is
        begun again. Raises ServerUnreachableError when the server does not come back.
        """
        place = Place()
        while not place.is_last:
            try:
                async for event in self._stretch(path, body, query, place):
                    yield event
            except httpx.TransportError as err:
                if place.seen is None:
                    raise self._unreachable(err) from err
                place.broken = err
            if not place.is_last and not await place.pause():
                raise self._unreachable(place.broken) from place.broken

    async def _stretch(
        self, path: str, body: Any, query: Mapping[str, Any], place: Place
    ) -> AsyncIterator[WorkflowEvent]:
        """One answer's events: from the beginning, or after the last one seen."""
        streamed = self._http.stream(
            "POST",
            path,
            json=_given(body),
            params=_given(query),
            headers={"accept": "text/event-stream", **place.headers()},
            timeout=WHILE_IT_SPEAKS,
        )
        async with streamed as answer:
            if place.seen is not None and answer.status_code in COMING_BACK:
                place.broken = httpx.RemoteProtocolError(f"it answers {answer.status_code}")
                return
            if answer.is_error:
                raise refusal(answer.status_code, await answer.aread())
            if answer.status_code == 204:
                place.take(LAST)
            async for line in answer.aiter_lines():
                data = place.take(line)
                if data is not None:
                    yield WorkflowEvent.from_json(json.loads(data))

    def _unreachable(self, err: Exception) -> ServerUnreachableError:
        reason = str(err) or type(err).__name__
        return ServerUnreachableError(f"No answer from {self.url} ({reason}). Is `flowctl dev` running?")


def refusal(status: int, content: bytes) -> FlowctlError:
    """The error that an answer tells of: of the class it had in the server, where that can be known."""
    try:
        body = dict(json.loads(content))
    except (ValueError, TypeError):
        body = {}
    message = str(body.get("error") or f"The server answered {status}.")
    if "issues" in body:
        issues = [Issue(str(i.get("field", "")), str(i.get("message", ""))) for i in body["issues"]]
        return ValidationError(message.partition(":")[0], issues)
    known = {cls.code: cls for cls in (RunStateError, *_subclasses(RunStateError))}
    if body.get("code") in known:
        return known[body["code"]](message)
    return NotFoundError(message) if status == 404 else ApiError(message, status)


def _subclasses(cls: type[RunStateError]) -> Iterator[type[RunStateError]]:
    for subclass in cls.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def _given(values: Any) -> Any:
    """Without what is None: absent on the wire."""
    if not isinstance(values, Mapping):
        return values
    return {name: value for name, value in values.items() if value is not None}
