"""Pages for people: what the app has, and its API to read and try. They load nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from flowctl.server import openapi
from flowctl.server.operations import Operation, json_response

if TYPE_CHECKING:
    from flowctl.app import App


@dataclass(slots=True)
class Pages:
    """Routes at the root, and those below the API's prefix."""

    own: list[BaseRoute] = field(default_factory=list[BaseRoute])
    api: list[BaseRoute] = field(default_factory=list[BaseRoute])


def routes(app: App, table: Sequence[Operation[Any, Any]]) -> Pages:
    """The pages that the app's configuration asks for."""
    pages = Pages()

    async def home(_: Request) -> Response:
        return _page("flowctl", _home(app))

    async def document(request: Request) -> Response:
        return json_response(described(app, table, request))

    async def docs(request: Request) -> Response:
        return _page("API · flowctl", _reference(described(app, table, request)))

    if app.server.studio:
        pages.own.append(Route("/", home))
    if app.server.openapi:
        pages.own.append(Route("/docs", docs))
        pages.api.append(Route("/openapi.json", document))
    return pages


def described(app: App, table: Sequence[Operation[Any, Any]], request: Request) -> dict[str, Any]:
    """The OpenAPI document as this request should see it: where the app is mounted, how one gets in."""
    mounted = str(request.scope.get("root_path", "")).removesuffix(openapi.PREFIX)
    schemes = ["bearer"] if app.server.auth is not None else []
    return openapi.document(table, server=mounted, schemes=schemes)


def _home(app: App) -> str:
    workflows = "".join(
        f'<li><a href="api/workflows/{quote(id, safe="")}">{html.escape(id)}</a> '
        f"{html.escape(workflow.description or '')}</li>"
        for id, workflow in app.workflows.items()
    )
    functions = "".join(f"<li>{html.escape(f.local_id)}</li>" for f in app.functions)
    docs = '<p><a href="docs">The API</a></p>' if app.server.openapi else ""
    return (
        f"<h1>flowctl</h1>{docs}<h2>Workflows</h2><ul>{workflows}</ul><h2>Functions</h2><ul>{functions}</ul>"
    )


def _reference(document: dict[str, Any]) -> str:
    server = document["servers"][0]["url"].rstrip("/")
    rows = "".join(
        _operation(server, path, method, shown, document["components"]["schemas"])
        for path, methods in document["paths"].items()
        for method, shown in methods.items()
    )
    return (
        f"<h1>API</h1><p>flowctl {html.escape(document['info']['version'])} · "
        '<a href="api/openapi.json">openapi.json</a></p>'
        '<p><label>Key or token <input id="key" type="password" autocomplete="off"></label></p>' + rows
    )


def _operation(server: str, path: str, method: str, shown: dict[str, Any], schemas: dict[str, Any]) -> str:
    own = path.removeprefix("/")  # relative to the page: right behind any proxy
    inputs = "".join(_input(parameter) for parameter in shown.get("parameters", ()))
    body = ""
    if "requestBody" in shown:
        schema = shown["requestBody"]["content"]["application/json"]["schema"]
        name = str(schema.get("$ref", "")).rpartition("/")[2]
        fields = json.dumps(schemas.get(name, schema), indent=2, ensure_ascii=False)
        example = json.dumps(schemas.get(name, {}).get("examples", [{}])[0], ensure_ascii=False)
        body = (
            f'<label>Body<textarea name="body" rows="4">{html.escape(example)}</textarea></label>'
            f"<details><summary>{html.escape(name)}</summary><pre>{html.escape(fields)}</pre></details>"
        )
    answers = "".join(
        f"<li><b>{status}</b> {html.escape(answer['description'])}</li>"
        for status, answer in sorted(shown["responses"].items())
    )
    return (
        f'<details class="op"><summary><b class="{method}">{method.upper()}</b> '
        f"<code>{html.escape(server + path)}</code> {html.escape(shown['summary'])}</summary>"
        f'<form data-method="{method.upper()}" data-path="{html.escape(own)}">{inputs}{body}'
        f"<button>Send</button><pre hidden></pre></form><ul>{answers}</ul></details>"
    )


def _input(parameter: dict[str, Any]) -> str:
    name, note = html.escape(parameter["name"]), html.escape(parameter.get("description", ""))
    mark = " *" if parameter.get("required") else ""
    where = parameter["in"]
    return f'<label>{name}{mark}<input name="{name}" data-in="{where}" placeholder="{note}"></label>'


@cache
def _asset(name: str) -> tuple[str, str]:
    """A file beside this one, and its hash as a content security policy names it."""
    text = (files("flowctl.server") / "assets" / name).read_text(encoding="utf-8")
    return text, f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _page(title: str, body: str) -> Response:
    style, style_hash = _asset("docs.css")
    script, script_hash = _asset("docs.js")
    policy = f"default-src 'none'; style-src {style_hash}; script-src {script_hash}; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"  # noqa: E501 - one header
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{style}</style><main>{body}</main>"
        f"<script>{script}</script></html>"
    )
    return HTMLResponse(page, headers={"content-security-policy": policy})
