"""How the server is set up; cheap to import."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from starlette.middleware import Middleware
    from starlette.routing import BaseRoute

    from flowctl.server.auth import Authenticator

BODY_BYTES = 5 * 2**20


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Where `app.asgi` is served, who may use it, and what is mounted beside the API.

    `routes` and `middleware` are Starlette's: routes come before ours, middleware runs behind `auth`.
    `cors` lists origins (`https://app.example.com`, or `*`) whose pages may use the API.
    `auth` guards all but `/health` and `/api/inngest`: see `flowctl.server.auth`.
    `studio` shows the pages at `/`, `openapi` the document and `/docs`.
    `body_limit` is in bytes (`/api/inngest` has its own); `timeout` in seconds: how long a request that waits
    for a run does so before it is answered with 504, while the run goes on. None waits as long as the run.
    `logs` sets up Python's logging when the server starts, with one readable or JSON line a record and one
    for each request; None leaves logging as it is.
    """

    host: str = "127.0.0.1"
    port: int = 4111
    routes: Sequence[BaseRoute] = ()
    middleware: Sequence[Middleware] = ()
    cors: Sequence[str] = ()
    auth: Authenticator | Sequence[Authenticator] | None = None
    studio: bool = True
    openapi: bool = True
    body_limit: int = BODY_BYTES
    timeout: float | None = None
    logs: Literal["text", "json"] | None = None
