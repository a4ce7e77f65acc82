"""What stands around the app in development: its answer is proved before it serves, its streams end with it.

An ASGI layer of `dev.app_worker`. It adds `GET /api/dev` (how the last reload went) and a log of requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flowctl.server.gate import LocalOnly

STATUS_PATH = "/api/dev"
PROBE_PATH = "/health"
PROBE_SECONDS = 30.0
STREAM_END_SECONDS = 0.5
RESTARTING = 1012
QUIET = ("/api/inngest", STATUS_PATH, "/health", "/assets/", "/favicon")
log = logging.getLogger("flowctl.requests")


@dataclass(slots=True)
class Exchange:
    """A request under way, or a WebSocket."""

    kind: str
    task: asyncio.Task[Any] | None
    is_stream: bool = False
    started: bool = False
    complete: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class Shell:
    """The app with what development adds."""

    app: ASGIApp
    status: dict[str, Any] = field(default_factory=dict[str, Any])
    failure: BaseException | None = None
    _open: set[int] = field(default_factory=set[int])
    _exchanges: dict[int, Exchange] = field(default_factory=dict[int, Exchange])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, with an eye on it."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif scope["type"] == "http" and scope["path"] == STATUS_PATH:
            await LocalOnly(self._answer_status)(scope, receive, send)
        else:
            await self._exchange(scope, receive, send)

    def end_streams(self) -> None:
        """End event streams and WebSockets, so that their clients come back to the next worker."""
        for exchange in list(self._exchanges.values()):
            if exchange.is_stream:
                exchange.ended.set()
                if exchange.task is not None:
                    asyncio.get_running_loop().call_later(STREAM_END_SECONDS, exchange.task.cancel)

    @property
    def unfinished(self) -> int:
        """How many requests are under way."""
        return len(self._exchanges)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def proved(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                await self._probe(scope.get("state", {}))
            await send({"type": message["type"]})

        try:
            await self.app(scope, receive, proved)
        except BaseException as err:
            self.failure = err
            raise

    async def _probe(self, state: MutableMapping[str, Any]) -> None:
        """Ask the app for an answer; raises RuntimeError unless it gives one."""
        statuses: list[int] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        headers = [(b"host", b"127.0.0.1")]
        line = {"method": "GET", "path": PROBE_PATH, "raw_path": PROBE_PATH.encode(), "query_string": b""}
        about = {"http_version": "1.1", "scheme": "http", "root_path": "", "server": ("127.0.0.1", 0)}
        scope = {"type": "http", "asgi": {"version": "3.0"}, "headers": headers, "client": ("127.0.0.1", 0)}
        async with asyncio.timeout(PROBE_SECONDS):
            await self.app(scope | line | about | {"state": dict(state)}, receive, send)
        if not statuses or statuses[0] >= 500:
            raise RuntimeError(f"The app does not answer: GET {PROBE_PATH} gave {statuses or 'nothing'}.")

    async def _answer_status(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        body = json.dumps(self.status).encode()
        headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _exchange(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope["type"], asyncio.current_task(), is_stream=scope["type"] == "websocket")
        self._exchanges[id(exchange)] = exchange
        began = time.perf_counter()

        async def watched(message: Message) -> None:
            _note(exchange, message)
            if message["type"] == "http.response.start":
                _log(scope, message["status"], time.perf_counter() - began)
            await send(message)

        try:
            await self.app(scope, _until_ended(exchange, receive), watched)
        except asyncio.CancelledError:
            if not exchange.ended.is_set():
                raise
        finally:
            del self._exchanges[id(exchange)]
        if exchange.ended.is_set() and not exchange.complete:
            with contextlib.suppress(Exception):
                await send(_last_word(exchange))


def _note(exchange: Exchange, message: Message) -> None:
    kind = message["type"]
    if kind == "http.response.start":
        exchange.started = True
        exchange.is_stream = any(
            name.lower() == b"content-type" and value.startswith(b"text/event-stream")
            for name, value in message.get("headers", ())
        )
    elif kind == "websocket.close" or (kind == "http.response.body" and not message.get("more_body")):
        exchange.complete = True


def _until_ended(exchange: Exchange, receive: Receive) -> Receive:
    """The client's messages; once the worker was replaced, that the client is gone."""
    gone = "websocket.disconnect" if exchange.kind == "websocket" else "http.disconnect"

    async def receive_or_end() -> Message:
        incoming, ended = asyncio.ensure_future(receive()), asyncio.ensure_future(exchange.ended.wait())
        try:
            await asyncio.wait({incoming, ended}, return_when=asyncio.FIRST_COMPLETED)
            return incoming.result() if incoming.done() else {"type": gone, "code": RESTARTING}
        finally:
            for waiting in (incoming, ended):
                waiting.cancel()

    return receive_or_end


def _last_word(exchange: Exchange) -> Message:
    if exchange.kind == "websocket":
        return {"type": "websocket.close", "code": RESTARTING}
    return {"type": "http.response.body", "body": b"", "more_body": False}


def _log(scope: Scope, status: int, seconds: float) -> None:
    path = scope["path"]
    level = logging.DEBUG if path.startswith(QUIET) else logging.INFO
    log.log(level, "%-6s %s  %d  %.0f ms", scope["method"], path, status, seconds * 1000)
