"""The Starlette application of an app: its routes, what requests pass on the way, its life."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route, Router

from flowctl.errors import FlowctlError, ValidationError
from flowctl.server import api, health, operations, pages
from flowctl.server.auth import Authenticator
from flowctl.server.gate import INNGEST, Authenticated, BodyLimit, Boundary, LocalOnly, is_development
from flowctl.server.inngest import Endpoint
from flowctl.server.life import Life
from flowctl.server.operations import json_response

if TYPE_CHECKING:
    from flowctl.app import App

EXPOSED = ("x-request-id",)


def create_asgi(app: App) -> Starlette:
    """The ASGI application; starting and stopping it starts and stops the app."""
    life = Life(app)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        async with life:
            yield

    asgi = Starlette(
        routes=_routes(app),
        middleware=_middleware(app, life),
        exception_handlers=cast("dict[Any, Any]", {FlowctlError: _flowctl_error, HTTPException: _http_error}),
        lifespan=lifespan,
    )
    asgi.state.streams = life.streams
    return asgi


def _routes(app: App) -> list[BaseRoute]:
    table = api.operations()
    shown = pages.routes(app, table)
    return [
        *app.server.routes,
        *health.routes(app),
        *shown.own,
        Route(INNGEST, Endpoint(app, []), methods=["GET", "POST", "PUT"]),
        Mount("/api", operations.WholePaths(Router([*shown.api, *operations.routes(app, table)]))),
    ]


def _middleware(app: App, life: Life) -> list[Middleware]:
    """From the outside in; the user's own come last, so that they see the user and never a foreign page."""
    config, layers = app.server, [Middleware(Boundary, ready=life.ready)]
    if is_development():
        layers.append(Middleware(LocalOnly, origins=config.cors))
    if config.cors:
        layers.append(_cors(config.cors))
    if config.auth is not None:
        layers.append(Middleware(Authenticated, authenticators=authenticators(config.auth)))
    return [*layers, Middleware(BodyLimit, limit=config.body_limit), *config.middleware]


def _cors(origins: Sequence[str]) -> Middleware:
    everything = ("*",)
    return Middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=everything,
        allow_headers=everything,
        expose_headers=EXPOSED,
        max_age=3600,
    )


def authenticators(auth: Authenticator | Sequence[Authenticator]) -> list[Authenticator]:
    """One or several, as a list."""
    return [auth] if callable(auth) else list(auth)


async def _flowctl_error(_: Request, err: FlowctlError) -> Response:
    body: dict[str, Any] = {"error": str(err), "code": err.code}
    if isinstance(err, ValidationError):
        body["issues"] = [issue.to_json() for issue in err.issues]
    return json_response(body, err.http_status)


async def _http_error(request: Request, err: HTTPException) -> Response:
    reason = {
        404: f"Nothing at {request.method} {request.url.path}.",
        405: f"{request.url.path} does not take {request.method}.",
    }.get(err.status_code, err.detail)
    code = HTTPStatus(err.status_code).name
    response = json_response({"error": reason, "code": code}, err.status_code)
    response.headers.update(err.headers or {})
    return response
