"""`/api/openapi.json`, made from the table of operations and the models that parse and describe.

Called by `app`, `docs_page` and tests; everything here is pure.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from flowctl.server import models
from flowctl.server.operations import Operation
from flowctl.server.streams import NDJSON, RECORDS, SSE

PREFIX = "/api"
JSON = "application/json"
REF = "#/components/schemas/{model}"
_PARAMETER = re.compile(r"{(\w+)}")

_IDS = {"workflowId": "increment-workflow", "runId": "run-7", "functionId": "workflow.increment-workflow"}
_CODES = {
    400: "INVALID_DATA",
    401: "UNAUTHENTICATED",
    403: "FORBIDDEN",
    404: "RUN_NOT_FOUND",
    408: "REQUEST_TIMEOUT",
    409: "NOT_SUSPENDED",
    413: "BODY_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    500: "INTERNAL",
    503: "STORAGE_ERROR",
    504: "RUN_TAKES_LONGER",
}
"""Of each status, the code that is met most."""
_REASONS = {
    400: "A parameter or the body does not fit: `issues` says where.",
    401: "The request does not say who it is from.",
    403: "Not allowed: who is asking, or the page that asks.",
    404: "There is no such workflow, run, step or function.",
    408: "The body did not come in time.",
    409: "The run is in a state that does not allow this; nothing was changed.",
    413: "The body is too large.",
    415: "The body is no JSON.",
    500: "A mistake on the server: its log has the request's id.",
    503: "The storage or the engine cannot be reached.",
    504: "The run takes longer than the server lets requests wait; it goes on.",
}
_BODY = (408, 413, 415)


def document(
    operations: Sequence[Operation[Any, Any]], *, server: str = "/", schemes: Iterable[str] = ()
) -> dict[str, Any]:
    """The OpenAPI 3.1 document. `server` is where the app is mounted, `schemes` says how callers prove who
    they are."""
    schemas, components = _schemas(operations)
    paths: dict[str, dict[str, Any]] = {}
    for op in operations:
        shown = _operation(op, schemas)
        paths.setdefault(PREFIX + op.path, {})[op.method.lower()] = shown
    paths |= _health_paths()
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "flowctl",
            "version": _version(),
            "description": "Workflows, their runs, and Inngest functions.",
        },
        "servers": [{"url": server or "/"}],
        "paths": paths,
        "components": {"schemas": components},
    }
    return _secured(found, list(schemes))


def _schemas(operations: Sequence[Operation[Any, Any]]) -> tuple[dict[Any, Any], dict[str, Any]]:
    """The schema of each model and answer, by its type, and what they refer to."""
    types: dict[str, Any] = {str(t): t for op in operations for t in (op.query, op.body, op.answer)}
    types |= {str(t): t for t in (models.Problem, models.Health, models.Readiness, models.RunEvent)}
    inputs: list[tuple[str, JsonSchemaMode, TypeAdapter[Any]]] = [
        (name, "validation", TypeAdapter(t)) for name, t in types.items()
    ]
    by_name, shared = TypeAdapter.json_schemas(inputs, ref_template=REF)
    schemas = {types[name]: schema for (name, _), schema in by_name.items()}
    queries = {op.query.__name__ for op in operations} | {"Body"}
    return schemas, {name: s for name, s in sorted(shared["$defs"].items()) if name not in queries}


def _operation(op: Operation[Any, Any], schemas: Mapping[Any, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "operationId": _id(op),
        "summary": inspect.getdoc(op.handler) or "",
        "tags": [op.path.split("/")[1]],
        "parameters": [*_path_parameters(op.path), *_query_parameters(op)],
        "responses": {**_answers(op, schemas), **{str(s): _problem(s) for s in _refusals(op)}},
    }
    if op.takes_body:
        required = any(f.is_required() for f in op.body.model_fields.values())
        shown["requestBody"] = {"required": required, "content": {JSON: {"schema": schemas[op.body]}}}
    return shown


def _id(op: Operation[Any, Any]) -> str:
    name = op.handler.__name__
    return f"{name}_by_get" if op.streams and op.method == "GET" else name


def _path_parameters(path: str) -> list[dict[str, Any]]:
    text = {"type": "string", "minLength": 1}
    return [
        {"name": name, "in": "path", "required": True, "schema": text, "example": _IDS[name]}
        for name in _PARAMETER.findall(path)
    ]


def _query_parameters(op: Operation[Any, Any]) -> list[dict[str, Any]]:
    schema = op.query.model_json_schema(ref_template=REF)
    required = set(schema.get("required", ()))
    shown: list[dict[str, Any]] = []
    for name, field in schema.get("properties", {}).items():
        plain = {k: v for k, v in _without_null(field).items() if k not in {"title", "default"}}
        note = {"description": plain.pop("description")} if "description" in plain else {}
        parameter = {"name": name, "in": "query", "required": name in required, **note, "schema": plain}
        shown.append(
            parameter | ({"style": "form", "explode": False} if plain.get("type") == "array" else {})
        )
    if op.streams:
        text = {"type": "string", "pattern": r"^\d{1,18}$"}
        note = "The number of the last event that came: the stream is taken up after it."
        shown.append({"name": "Last-Event-ID", "in": "header", "description": note, "schema": text})
    return shown


def _without_null(field: Mapping[str, Any]) -> dict[str, Any]:
    """A parameter that is absent is not null."""
    kinds = [kind for kind in field.get("anyOf", ()) if kind != {"type": "null"}]
    rest = {name: value for name, value in field.items() if name != "anyOf"}
    return rest | (kinds[0] if len(kinds) == 1 else {"anyOf": kinds} if kinds else {})


def _answers(op: Operation[Any, Any], schemas: Mapping[Any, Any]) -> dict[str, Any]:
    if not op.streams:
        return {"200": {"description": "Done.", "content": {JSON: {"schema": schemas[op.answer]}}}}
    text = {"schema": {"type": "string"}}
    note = (
        "Run events (`RunEvent`) as they come: JSON split by the byte 0x1E, or by `Accept` a line each or "
        "server-sent events with ids."
    )
    return {
        "200": {"description": note, "content": {RECORDS: text, NDJSON: text, SSE: text}},
        "204": {"description": "The run has ended, and there is nothing after the event named."},
    }


def _refusals(op: Operation[Any, Any]) -> list[int]:
    """The statuses that an operation may be refused with."""
    changes = op.method != "GET" and "{workflowId}" in op.path
    return sorted(
        {
            *((400,) if op.query.model_fields or op.takes_body or op.streams else ()),
            *((404,) if "{" in op.path or op.path == "/events" else ()),
            *(_BODY if op.takes_body else ()),
            *((409,) if changes else ()),
            *((504,) if op.waits else ()),
            403, 500, 503,
        }
    )  # fmt: skip


def _problem(status: int) -> dict[str, Any]:
    schema = {"$ref": REF.format(model="Problem")}
    example: dict[str, Any] = {"error": _REASONS[status], "code": _CODES[status]}
    if status == 400:
        example["issues"] = [{"field": "value", "message": "Input should be a valid integer"}]
    return {"description": _REASONS[status], "content": {JSON: {"schema": schema, "example": example}}}


def _health_paths() -> dict[str, Any]:
    def answered(summary: str, id: str, model: str, **more: str) -> dict[str, Any]:
        content = {JSON: {"schema": {"$ref": REF.format(model=model)}}}
        statuses = {"200": "Yes.", **more}
        responses = {status: {"description": note, "content": content} for status, note in statuses.items()}
        return {"get": {"operationId": id, "summary": summary, "tags": ["health"], "responses": responses}}

    return {
        "/health": answered("Whether the process answers.", "health", "Health"),
        "/health/live": answered("Whether the process answers: the same.", "live", "Health"),
        "/health/ready": answered(
            "Whether storage and engine can be reached.", "ready", "Readiness", **{"503": "No."}
        ),
    }


def _secured(found: dict[str, Any], schemes: list[str]) -> dict[str, Any]:
    """Say how callers prove who they are, and that each operation of the API may answer 401."""
    if not schemes:
        return found
    found["components"]["securitySchemes"] = {s: {"type": "http", "scheme": s} for s in schemes}
    found["security"] = [{scheme: []} for scheme in schemes]
    for path, methods in found["paths"].items():
        for shown in methods.values():
            if path.startswith("/health"):
                shown["security"] = []
            else:
                shown["responses"]["401"] = _problem(401)
    return found


def _version() -> str:
    try:
        return version("flowctl-workflows")
    except PackageNotFoundError:
        return "0"
