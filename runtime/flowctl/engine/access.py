"""Who may call the engine: this machine's programs in development, bearers of keys in production.

Wrapped around the application by `api`; the realtime routes check tokens of their own.
"""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flowctl.engine.answers import json_answer, refused
from flowctl.engine.checkpoint_api import is_output
from flowctl.engine.signing import Keys

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1", "host.docker.internal"})
LOCAL_ORIGIN = r"https?://(localhost|127\.0\.0\.1|\[::1\]|host\.docker\.internal)(:\d+)?"
_OPEN = frozenset({"/health", "/metrics"})


class ServerKind:
    """Tells in every answer which kind of server this is, as SDKs expect."""

    def __init__(self, app: ASGIApp, kind: str) -> None:
        self.app, self.kind = app, kind

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Add the header."""

        async def with_kind(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-inngest-server-kind"] = self.kind
            await send(message)

        await self.app(scope, receive, with_kind if scope["type"] == "http" else send)


class LocalOnly:
    """Refuses what a web page could make a browser send to a port of this machine."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 403 for foreign Host and Origin headers."""
        if scope["type"] in {"http", "websocket"} and not _is_local(dict(scope["headers"])):
            await PlainTextResponse("This engine answers its own machine only.", 403)(scope, receive, send)
            return
        await self.app(scope, receive, send)


class Authorized:
    """Lets in who bears a signing key (or its hash), or sends events with an event key; health is open."""

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self.app, self.keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401 to others, saying which key is missing."""
        refusal = None
        if scope["type"] in {"http", "websocket"}:
            refusal = self._refusal(scope["path"], dict(scope["headers"]))
        await (refusal or self.app)(scope, receive, send)

    def _refusal(self, path: str, headers: dict[bytes, bytes]) -> Response | None:
        if path.startswith("/e/"):
            return self._event_refusal(unquote(path.removeprefix("/e/")))
        if path in _OPEN or _checks_token(path) or self.keys.lets_in(bearer(headers)):
            return None
        return refused(
            "Not authenticated: send 'Authorization: Bearer <signing key>' (or its hash), as an SDK with the "
            "engine's signing key (INNGEST_SIGNING_KEY) does.",
            401,
        )

    def _event_refusal(self, key: str) -> Response | None:
        if self.keys.takes_event(key):
            return None
        message = "Event key not found: use one of the engine's event keys (INNGEST_EVENT_KEY)."
        return json_answer({"ids": [""], "status": 401, "error": message}, 401)


def _checks_token(path: str) -> bool:
    """Whether a path's handler checks tokens of its own."""
    return path.startswith("/v1/realtime/") or is_output(path)


def bearer(headers: dict[bytes, bytes]) -> str:
    """The Authorization header."""
    return headers.get(b"authorization", b"").decode("latin-1")


def _is_local(headers: dict[bytes, bytes]) -> bool:
    host = urlsplit(f"//{headers.get(b'host', b'localhost').decode('latin-1')}").hostname
    origin = headers.get(b"origin")
    if host not in LOOPBACK and host != "0.0.0.0":  # noqa: S104 - SDKs' tests call it so; no name can be rebound to it
        return False
    return not origin or urlsplit(origin.decode("latin-1")).hostname in LOOPBACK
