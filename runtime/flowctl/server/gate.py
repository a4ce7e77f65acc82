"""What a request passes before a route sees it, as plain ASGI: id and log, origin, user, size of the body.

Put together by `app`. Each refusal is JSON, as those of the API.
"""

from __future__ import annotations

import inspect
import os
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flowctl.errors import FlowctlError
from flowctl.server import logs
from flowctl.server.auth import Authenticator, ForbiddenError, UnauthenticatedError
from flowctl.server.operations import json_response

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1", "host.docker.internal"})
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
INNGEST = "/api/inngest"
OPEN = frozenset({INNGEST, "/health", "/health/live", "/health/ready"})
_ID = re.compile(r"[\w.:/+=-]{1,128}")


def is_development() -> bool:
    """Whether `flowctl dev` serves the app."""
    return os.environ.get("FLOWCTL_ENV") == "development"


def route_path(scope: Scope) -> str:
    """The path as routes see it: without where the app is mounted."""
    return str(scope["path"]).removeprefix(scope.get("root_path", ""))


class Boundary:
    """The outermost layer: gives a request its id, logs it, answers what nobody caught with 500.

    `ready` is awaited before the first request, for an app that is mounted where no lifespan is run.
    """

    def __init__(self, app: ASGIApp, ready: Callable[[], Awaitable[None]]) -> None:
        self.app, self.ready = app, ready

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        sent = HTTPConnection(scope).headers.get("x-request-id", "")
        id = sent if _ID.fullmatch(sent) else uuid.uuid4().hex
        token, began, status = logs.request_id.set(id), time.perf_counter(), 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = id
            await send(message)

        try:
            await self._pass_on(scope, receive, answer, lambda: status != 0)
        finally:
            if scope["type"] == "http":
                _log(scope, status, time.perf_counter() - began)
            logs.request_id.reset(token)

    async def _pass_on(
        self, scope: Scope, receive: Receive, send: Send, has_begun: Callable[[], bool]
    ) -> None:
        try:
            await self.ready()
            await self.app(scope, receive, send)
        except FlowctlError as err:
            await refuse(err, scope, receive, send)
        except Exception:
            if has_begun() or scope["type"] != "http":
                raise
            logs.requests.exception("%s %s failed", scope["method"], quote(scope["path"]))
            body = {"error": "Internal server error", "code": "INTERNAL", "requestId": logs.request_id.get()}
            await json_response(body, 500)(scope, receive, send)


def _log(scope: Scope, status: int, seconds: float) -> None:
    if is_development() or route_path(scope).startswith("/health"):
        return  # the development server logs requests itself
    path, took = quote(scope["path"]), round(seconds * 1000, 1)  # quoted: a line stays one line
    fields = {"method": scope["method"], "path": path, "status": status, "ms": took}
    logs.requests.info("%s %s %d", scope["method"], path, status, extra=fields)


class LocalOnly:
    """In development: refuses what a web page could make a browser send to a port of this machine."""

    def __init__(self, app: ASGIApp, origins: Sequence[str] = ()) -> None:
        self.app, self.origins = app, origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 403 for a foreign Host, and for a foreign Origin that writes."""
        if scope["type"] in {"http", "websocket"}:
            foreign = _foreign(HTTPConnection(scope), self.origins)
            if foreign:
                await refuse(
                    ForbiddenError(f"{foreign} may not use this development server."), scope, receive, send
                )
                return
        await self.app(scope, receive, send)


def _foreign(request: HTTPConnection, origins: Sequence[str]) -> str | None:
    allowed = LOOPBACK | {os.environ.get("FLOWCTL_HOST", "127.0.0.1")}
    host = request.headers.get("host", "localhost")
    if _host_of(f"//{host}") not in allowed:
        return f"The host {host!r}"
    origin = request.headers.get("origin")
    reads = request.scope.get("method", "WEBSOCKET") in SAFE
    if origin is None or reads or origin in origins or "*" in origins or _host_of(origin) in allowed:
        return None
    return f"The origin {origin!r}"


def _host_of(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


class Authenticated:
    """Lets in whom an authenticator knows; `/health` is for everybody, `/api/inngest` has signatures."""

    def __init__(self, app: ASGIApp, authenticators: Sequence[Authenticator]) -> None:
        self.app, self.authenticators = app, authenticators

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Put the user into the scope, or answer 401 or 403."""
        if scope["type"] in {"http", "websocket"} and not self._is_open(scope):
            try:
                scope["user"] = await self._user(HTTPConnection(scope))
            except FlowctlError as err:
                await refuse(err, scope, receive, send, {"www-authenticate": self._challenge()})
                return
        await self.app(scope, receive, send)

    async def _user(self, request: HTTPConnection) -> Any:
        for authenticator in self.authenticators:
            user = authenticator(request)
            user = await user if inspect.isawaitable(user) else user
            if user is not None:
                _refuse_forged(request)
                return user
        raise UnauthenticatedError("Say who you are: send a key or token as `Authorization: Bearer …`.")

    def _is_open(self, scope: Scope) -> bool:
        return route_path(scope) in OPEN or scope.get("method") == "OPTIONS"

    def _challenge(self) -> str:
        return ", ".join({getattr(known, "challenge", "Bearer"): None for known in self.authenticators})


def _refuse_forged(request: HTTPConnection) -> None:
    """A browser adds a remembered password to what a foreign page makes it send: such writes are refused."""
    origin = request.headers.get("origin")
    basic = request.headers.get("authorization", "").lower().startswith("basic ")
    writes = request.scope.get("method") not in SAFE
    if basic and writes and origin and urlsplit(origin).netloc != request.headers.get("host"):
        raise ForbiddenError(f"The origin {origin!r} may not use a password that the browser keeps.")


class BodyTooLargeError(FlowctlError):
    """More was sent than the server takes."""

    code = "BODY_TOO_LARGE"
    http_status: ClassVar[int] = 413


class BodyLimit:
    """Refuses bodies that are too large with 413; `/api/inngest` has a limit of its own."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app, self.limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count what comes, whatever its length is said to be."""
        if scope["type"] != "http" or route_path(scope) == INNGEST:
            await self.app(scope, receive, send)
            return
        too_large = BodyTooLargeError(f"The body is larger than {self.limit} bytes.")
        declared = HTTPConnection(scope).headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self.limit:
            await refuse(too_large, scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self.limit:
                raise too_large
            return message

        await self.app(scope, counted, send)


async def refuse(
    err: FlowctlError, scope: Scope, receive: Receive, send: Send, headers: dict[str, str] | None = None
) -> None:
    """Answer with an error as JSON; a websocket is not accepted."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": err.code})
        return
    response = json_response({"error": str(err), "code": err.code}, err.http_status)
    if err.http_status == 401:
        response.headers.update(headers or {})
    await response(scope, receive, send)
