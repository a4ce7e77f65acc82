"""HTTP to one server: calls, event streams, and refusals as the errors they were on the other side."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, ClassVar

import httpx

from flowctl.errors import FlowctlError, Issue, NotFoundError, RunStateError, ValidationError
from flowctl.events import WorkflowEvent

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0
AS_LONG_AS_THE_RUN = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS, read=None)


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
        """The events of a streaming call, as they come."""
        headers = {"accept": "application/x-ndjson"}
        streamed = self._http.stream(
            "POST", path, json=_given(body), params=_given(query), headers=headers, timeout=AS_LONG_AS_THE_RUN
        )
        try:
            async with streamed as answer:
                if answer.is_error:
                    raise refusal(answer.status_code, await answer.aread())
                async for line in answer.aiter_lines():
                    if line:
                        yield WorkflowEvent.from_json(json.loads(line))
        except httpx.TransportError as err:
            raise self._unreachable(err) from err

    def _unreachable(self, err: httpx.TransportError) -> ServerUnreachableError:
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
