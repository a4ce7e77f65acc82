"""Authenticated calls to Inngest's HTTP API: checkpoints, realtime messages, cancellations.

Called by `checkpoints`, `publisher` and `dispatch`. Over plain HTTP it uses the engine's own small transport,
because a step waits for its checkpoint; over TLS httpx, which knows proxies.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode
from weakref import WeakKeyDictionary

import httpx
import orjson

from flowctl.engine.transport import Answer, StaleError, Transport
from flowctl.errors import EngineError

if TYPE_CHECKING:
    import inngest

TIMEOUT_SECONDS = 30.0
UNKNOWN_FOR_SECONDS = 300.0
CROWD = 8
"""So many requests at once crowd a process: their runs go on while the engine is being told of it."""
JSON, LINES = "application/json", "application/x-ndjson"
_NO_EVENT_KEY = "NO_EVENT_KEY"
_PREFIX = re.compile(r"signkey-\w+-")


@dataclass(slots=True)
class _Connections:
    """Those of one event loop."""

    plain: Transport = field(default_factory=partial(Transport, TIMEOUT_SECONDS))
    tls: httpx.AsyncClient | None = None

    async def request(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """One request and its answer; raises OSError or httpx.HTTPError."""
        if url.startswith("https:"):
            self.tls = self.tls or httpx.AsyncClient(timeout=TIMEOUT_SECONDS)
            answer = await self.tls.request(method, url, headers=headers, content=body)
            return Answer(answer.status_code, answer.headers, answer.content)
        try:
            return await self.plain.request(method, url, headers=headers, body=body)
        except StaleError:  # the engine takes what it is sent twice but once
            return await self.plain.request(method, url, headers=headers, body=body)

    async def close(self) -> None:
        """Close them all."""
        await self.plain.close()
        if self.tls is not None:
            await self.tls.aclose()


@dataclass(slots=True)
class EngineApi:
    """The API of the engine that a client talks to; safe to use from several event loops."""

    client: inngest.Inngest
    requests: set[asyncio.Task[Any]] = field(default_factory=set[asyncio.Task[Any]])
    """Those that the engine has made and that are being answered."""
    _connections: WeakKeyDictionary[asyncio.AbstractEventLoop, _Connections] = field(
        default_factory=WeakKeyDictionary[asyncio.AbstractEventLoop, _Connections]
    )
    is_open: bool = True
    _has_no_checkpoints_until: float = 0.0
    takes_lines: bool = False
    """Whether the engine said that it takes several realtime messages in one request."""
    _uses_fallback_key: bool = False

    def note_request(self) -> None:
        """The current task answers one of the engine's requests."""
        if (request := asyncio.current_task()) is not None:
            self.requests.add(request)
            request.add_done_callback(self.requests.discard)

    @property
    def is_crowded(self) -> bool:
        """Whether a call for each step would cost what other runs could do in that time."""
        return len(self.requests) >= CROWD

    @property
    def takes_checkpoints(self) -> bool:
        """Whether the engine is believed to know checkpoints; one that did not is asked again later."""
        return time.monotonic() >= self._has_no_checkpoints_until

    def note_no_checkpoints(self) -> None:
        """Remember, for some minutes, that the engine does not know checkpoints."""
        self._has_no_checkpoints_until = time.monotonic() + UNKNOWN_FOR_SECONDS

    async def call(
        self, method: str, path: str, body: Any = None, params: Mapping[str, str] | None = None
    ) -> Answer:
        """The answer, whatever its status; raises EngineError when there is none."""
        content = b"" if body is None else orjson.dumps(body)
        return await self._authenticated(method, path, content, params)

    async def publish(self, messages: Sequence[bytes], params: Mapping[str, str]) -> None:
        """Send realtime messages (JSON), several only to an engine that `takes_lines`; raises EngineError."""
        kind = LINES if len(messages) > 1 else JSON
        try:
            answer = await self._authenticated(
                "POST", "/v1/realtime/publish", b"\n".join(messages), params, kind
            )
        except EngineError:  # another one may come in its place
            self.takes_lines = False
            raise
        self.takes_lines = LINES in answer.headers.get("accept-post", "")

    async def _authenticated(
        self, method: str, path: str, content: bytes, params: Mapping[str, str] | None, kind: str = JSON
    ) -> Answer:
        answer = await self._call(method, path, content, params, kind)
        if answer.status == 401 and self.client.signing_key_fallback and not self._uses_fallback_key:
            self._uses_fallback_key = True
            answer = await self._call(method, path, content, params, kind)
        return answer

    async def send(self, event: inngest.Event) -> None:
        """Send an event; raises EngineError, or what the client raises.

        A client with middleware sends by itself, since that may change events; so does one that needs TLS.
        """
        client = self.client
        if client.middleware or client.event_api_origin.startswith("https:"):
            await client.send(event)
            return
        if client.event_key is None and client.is_production:
            raise EngineError("there is no event key: set INNGEST_EVENT_KEY")
        url = f"{client.event_api_origin.rstrip('/')}/e/{client.event_key or _NO_EVENT_KEY}"
        sent = {"name": event.name, "data": event.data} | ({"id": event.id} if event.id else {})
        headers = {"content-type": JSON} | ({"x-inngest-env": client.env} if client.env else {})
        answer = await self._answer("POST", url, headers, orjson.dumps([sent]))
        if answer.status >= 300:
            raise EngineError(f"it answered {answer.status}: {answer.body.decode(errors='replace')[:200]}")

    async def close(self) -> None:
        """Close the connections of this event loop, and make no others until `is_open` is set again."""
        self.is_open = False
        connections = self._connections.pop(asyncio.get_running_loop(), None)
        if connections is not None:
            await connections.close()

    async def _call(
        self, method: str, path: str, content: bytes, params: Mapping[str, str] | None, kind: str
    ) -> Answer:
        query = f"?{urlencode(params)}" if params else ""
        url = f"{self.client.api_origin.rstrip('/')}{path}{query}"
        return await self._answer(method, url, self._headers(kind), content)

    async def _answer(self, method: str, url: str, headers: Mapping[str, str], content: bytes) -> Answer:
        if not self.is_open:
            raise EngineError("The app has been stopped: it calls the engine no more.")
        connections = self._connections.setdefault(asyncio.get_running_loop(), _Connections())
        try:
            return await connections.request(method, url, headers, content)
        except (OSError, httpx.HTTPError) as err:
            raise EngineError(f"Inngest at {self.client.api_origin} could not be reached: {err!r}") from err

    def _headers(self, kind: str) -> dict[str, str]:
        headers = {"content-type": kind}
        key = self.client.signing_key_fallback if self._uses_fallback_key else self.client.signing_key
        if key:
            headers["authorization"] = f"Bearer {_hashed(key)}"
        if self.client.env:
            headers["x-inngest-env"] = self.client.env
        return headers


def _hashed(key: str) -> str:
    prefix = match.group() if (match := _PREFIX.match(key)) else ""
    return prefix + hashlib.sha256(bytes.fromhex(key.removeprefix(prefix))).hexdigest()
