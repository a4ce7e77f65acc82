"""The REST API of a running server, as commands use it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import httpx

from flowctl.errors import FlowctlError

CONNECT_SECONDS = 5.0


class ServerUnreachableError(FlowctlError):
    """Nothing answers at the URL."""

    code = "SERVER_UNREACHABLE"
    exit_code: ClassVar[int] = 4


class RefusedError(FlowctlError):
    """The server refused a call: unknown workflow, data that does not fit, a run in another state."""

    code = "REFUSED"
    exit_code: ClassVar[int] = 2

    def __init__(self, message: str, *, status: int = 400) -> None:
        self.status = status
        super().__init__(message)


@dataclass(slots=True)
class Client:
    """Calls to one server."""

    url: str
    _http: httpx.AsyncClient = field(init=False)

    def __post_init__(self) -> None:
        timeout = httpx.Timeout(None, connect=CONNECT_SECONDS)
        self._http = httpx.AsyncClient(base_url=f"{self.url.rstrip('/')}/api", timeout=timeout)

    async def close(self) -> None:
        """Drop the connections."""
        await self._http.aclose()

    async def call(self, method: str, path: str, body: Any = None, **query: str) -> Any:
        """One call; the JSON answer. Raises ServerUnreachableError and RefusedError."""
        try:
            answer = await self._http.request(method, path, json=body, params=query)
        except httpx.TransportError as err:
            raise self._unreachable(err) from err
        _check(answer.status_code, answer.content)
        return answer.json()

    async def events(self, path: str, body: Any, **query: str) -> AsyncGenerator[dict[str, Any]]:
        """The events of a streaming call, as they come."""
        headers = {"accept": "application/x-ndjson"}
        try:
            async with self._http.stream("POST", path, json=body, params=query, headers=headers) as answer:
                if answer.is_error:
                    _check(answer.status_code, await answer.aread())
                async for line in answer.aiter_lines():
                    if line:
                        yield json.loads(line)
        except httpx.TransportError as err:
            raise self._unreachable(err) from err

    def _unreachable(self, err: httpx.TransportError) -> ServerUnreachableError:
        return ServerUnreachableError(f"No answer from {self.url} ({err}). Is `flowctl dev` running?")


def _check(status: int, content: bytes) -> None:
    if status < httpx.codes.BAD_REQUEST:
        return
    try:
        message = str(json.loads(content)["error"])
    except (ValueError, KeyError, TypeError):
        message = f"The server answered {status}."
    raise RefusedError(message, status=status)
