"""The Starlette application of an app: its routes, its errors as JSON, its life."""

from __future__ import annotations

import html
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from flowctl.errors import FlowctlError, ValidationError
from flowctl.server.api import WorkflowRoutes, json_response
from flowctl.server.inngest import Endpoint

if TYPE_CHECKING:
    from flowctl.app import App

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1", "host.docker.internal"})
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def create_asgi(app: App) -> Starlette:
    """The ASGI application; starting and stopping it starts and stops the app."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncGenerator[None]:
        await app.start()
        yield
        await app.stop()

    guard = [Middleware(LocalOnly)] if os.environ.get("FLOWCTL_ENV") == "development" else []
    return Starlette(
        routes=[
            *app.server.routes,
            Route("/", Home(app).page),
            Route("/health", _health),
            Route("/api/inngest", Endpoint(app, []), methods=["GET", "POST", "PUT"]),
            Mount("/api", routes=WorkflowRoutes(app).routes()),
        ],
        middleware=[*guard, *app.server.middleware],
        exception_handlers=cast("dict[Any, Any]", {FlowctlError: _flowctl_error, HTTPException: _http_error}),
        lifespan=lifespan,
    )


class Home:
    """A page for people: what this app has."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def page(self, _: Request) -> Response:
        """The list of workflows and functions."""
        workflows = "".join(
            f'<li><a href="/api/workflows/{html.escape(id)}">{html.escape(id)}</a> '
            f"{html.escape(workflow.description or '')}</li>"
            for id, workflow in self.app.workflows.items()
        )
        functions = "".join(f"<li>{html.escape(f.local_id)}</li>" for f in self.app.functions)
        body = f"<h1>flowctl</h1><h2>Workflows</h2><ul>{workflows}</ul><h2>Functions</h2><ul>{functions}</ul>"
        page = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>flowctl</title>{body}'
        return HTMLResponse(page, headers={"content-security-policy": "default-src 'none'"})


async def _health(_: Request) -> Response:
    return json_response({"success": True})


async def _flowctl_error(_: Request, err: FlowctlError) -> Response:
    body: dict[str, Any] = {"error": str(err), "code": err.code}
    if isinstance(err, ValidationError):
        body["issues"] = [{"field": issue.path, "message": issue.message} for issue in err.issues]
    return json_response(body, err.http_status)


async def _http_error(request: Request, err: HTTPException) -> Response:
    reason = err.detail if err.status_code != 404 else f"Nothing at {request.method} {request.url.path}."
    response = json_response({"error": reason}, err.status_code)
    response.headers.update(err.headers or {})
    return response


class LocalOnly:
    """In development: refuses what a web page could make a browser send to a port of this machine."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 403 for a foreign Host, and for a foreign Origin that writes."""
        if scope["type"] == "http":
            request = Request(scope)
            foreign = _foreign(request)
            if foreign:
                refusal = json_response({"error": f"{foreign} may not use this development server."}, 403)
                await refusal(scope, receive, send)
                return
        await self.app(scope, receive, send)


def _foreign(request: Request) -> str | None:
    allowed = LOOPBACK | {os.environ.get("FLOWCTL_HOST", "127.0.0.1")}
    host = urlsplit(f"//{request.headers.get('host', 'localhost')}").hostname or ""
    if host not in allowed:
        return f"The host {host!r}"
    origin = request.headers.get("origin")
    if origin and request.method not in SAFE and urlsplit(origin).hostname not in allowed:
        return f"The origin {origin!r}"
    return None
