"""One route of the REST API as data: what it takes, what it answers, the function that does it.

`api` has the table; `app` makes routes of it, `openapi` the document.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_args, get_type_hints
from urllib.parse import unquote

import pydantic
from pydantic_core import from_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from flowctl.errors import Issue, RunNotFoundError, ValidationError
from flowctl.schema import issues_of
from flowctl.server import wire
from flowctl.server.models import Body, Model, Query, RunEvent, RunResult

if TYPE_CHECKING:
    from flowctl.app import App
    from flowctl.run import Run
    from flowctl.workflow import Workflow

Q = TypeVar("Q", bound=Query)
B = TypeVar("B", bound=Body)

READ_SECONDS = 30.0
JSON_TYPES = ("application/json", "+json")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
SLASH = "\x1f"
"""What stands for a slash within a part of the path, which no id may have."""
_ENCODED_SLASH = re.compile("%2f", re.IGNORECASE)
_UNUSUAL_NUMBER = re.compile(rb"\d{19}|[eE]\+?\d{3}")


def json_response(body: Any, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(wire.dump(body), status, media_type="application/json")


@dataclass(frozen=True, slots=True)
class Call(Generic[Q, B]):
    """A request that was read: its parameters are valid, what they name may be missing."""

    app: App
    request: Request
    query: Q
    body: B

    def named(self, parameter: str) -> str:
        """A part of the path."""
        return str(self.request.path_params[parameter]).replace(SLASH, "/")

    @property
    def workflow(self) -> Workflow[Any, Any]:
        """The workflow that the path names; raises WorkflowNotFoundError."""
        return self.app.get_workflow(self.named("workflowId"))

    async def run(self, run_id: str) -> Run[Any]:
        """The stored run with that id: asking makes none. Raises RunNotFoundError."""
        workflow = self.workflow
        if await (await self.app.opened()).get_status(workflow.id, run_id) is None:
            raise RunNotFoundError(workflow.id, run_id)
        return await workflow.create_run(run_id=run_id)


@dataclass(frozen=True, slots=True)
class Operation(Generic[Q, B]):
    """A row of the table. `answer` is the type of the JSON in a 200: of each event where there are many."""

    method: str
    path: str
    handler: Callable[[Call[Q, B]], Awaitable[Response]]
    query: type[Q]
    body: type[B]
    answer: Any

    @property
    def streams(self) -> bool:
        """Whether it answers run events as they come."""
        return self.answer is RunEvent

    @property
    def waits(self) -> bool:
        """Whether it answers only when a run has stopped."""
        return self.answer is RunResult

    @property
    def takes_body(self) -> bool:
        """Whether there is anything to send in a body."""
        return bool(self.body.model_fields)

    async def respond(self, app: App, request: Request) -> Response:
        """Read a request and have the handler answer it."""
        query = parsed(self.query, dict(request.query_params), "Invalid query parameters")
        body = await read_body(request, self.body)
        return await self.handler(Call(app, request, query, body))


class WholePaths:
    """Lets ids have slashes (`%2F` in the URL), and takes paths with a slash at the end as those without."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on under the path that it means."""
        path, raw = scope["path"], (scope.get("raw_path") or b"").decode("latin-1")
        if _ENCODED_SLASH.search(raw) and unquote(raw) == path:
            path = unquote(_ENCODED_SLASH.sub(SLASH, raw))
        await self.app({**scope, "path": path.rstrip("/")}, receive, send)


def routes(app: App, table: Sequence[Operation[Any, Any]]) -> list[BaseRoute]:
    """A route for each path, so that a 405 can name all methods that there are."""
    by_path: dict[str, dict[str, Operation[Any, Any]]] = {}
    for row in table:
        by_path.setdefault(row.path, {})[row.method] = row
    return [_route(app, path, rows) for path, rows in by_path.items()]


def _route(app: App, path: str, rows: Mapping[str, Operation[Any, Any]]) -> Route:
    async def endpoint(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        return await rows[method].respond(app, request)

    return Route(path, endpoint, methods=list(rows))


def operation(
    method: str, path: str, handler: Callable[[Call[Q, B]], Awaitable[Response]], answer: Any
) -> Operation[Any, Any]:
    """A row of the table; what the request has is said by the type of the handler's parameter."""
    query, body = get_args(get_type_hints(handler)["call"])
    return Operation(method, path, handler, query, body, answer)


async def read_body(request: Request, model: type[B]) -> B:
    """The JSON body; an absent one is `{}`. Raises ValidationError, or HTTPException with 408 or 415."""
    if not model.model_fields:
        return model()
    try:
        async with asyncio.timeout(READ_SECONDS):
            raw = await request.body()
    except TimeoutError as err:
        raise HTTPException(408, f"The body did not come within {READ_SECONDS:.0f} seconds.") from err
    if raw:
        _refuse_other_types(request)
    given = _json(raw.removeprefix(BYTE_ORDER_MARK) or b"{}")
    body = parsed(model, given, "Invalid request body")
    if _UNUSUAL_NUMBER.search(raw):
        named = {name for key, field in model.model_fields.items() for name in (key, field.alias)}
        _refuse_unkept_numbers({name: value for name, value in given.items() if name in named}, "")
    return body


def _refuse_other_types(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not kind.endswith(JSON_TYPES):
        raise HTTPException(415, f"The body is {kind or 'of no type'}: send content-type: application/json.")
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise HTTPException(415, f"The body is {encoding}-encoded: send it as it is.")


def _json(raw: bytes) -> Any:
    """As JSON says: without NaN and infinity, which records cannot keep."""
    try:
        return from_json(raw, allow_inf_nan=False)
    except ValueError as err:
        raise ValidationError("Invalid request body", [Issue("", f"Invalid JSON: {err}")]) from err


def _refuse_unkept_numbers(value: Any, path: str) -> None:
    """Records keep integers of 64 bits, and floats; raises ValidationError that names another number."""
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise ValidationError("Invalid request body", [Issue(path, "Integer should have at most 64 bits")])
    if isinstance(value, float) and not math.isfinite(value):
        raise ValidationError("Invalid request body", [Issue(path, "Number should be smaller than 1.8e308")])
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            _refuse_unkept_numbers(item, f"{path}.{key}" if path else str(key))


M = TypeVar("M", bound=Model)


def parsed(model: type[M], given: Any, what: str) -> M:
    """The model of what was sent; raises ValidationError that names the fields as the wire does."""
    try:
        return model.model_validate(given)
    except pydantic.ValidationError as err:
        raise ValidationError(what, issues_of(err)) from err
