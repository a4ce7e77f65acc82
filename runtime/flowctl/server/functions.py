"""Inngest functions and events over the REST API: what the app serves, run one, send an event.

Called by `api`; calls the engine that the app's client points to.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import inngest
import orjson
from starlette.responses import Response

from flowctl.errors import EngineError, NotFoundError
from flowctl.runners.engine_api import EngineApi
from flowctl.server import models
from flowctl.server.models import Body, Query
from flowctl.server.operations import Call, Operation, json_response, operation

CLOUD = "https://api.inngest.com"


class FunctionNotFoundError(NotFoundError):
    """The app serves no function with that id."""

    code = "FUNCTION_NOT_FOUND"


class NoInngestClientError(NotFoundError):
    """The app has no client, so there is no engine to ask."""

    code = "NO_INNGEST_CLIENT"


async def list_functions(call: Call[Query, Body]) -> Response:
    """The Inngest functions that the app serves, workflows' included."""
    return json_response([_shown(function) for function in call.app.inngest_functions()])


async def invoke(call: Call[Query, models.InvokeFunction]) -> Response:
    """Have the engine run one function, of a workflow or a custom one, with this data."""
    client, id = _client(call), call.named("functionId")
    known = {function.local_id: function for function in call.app.inngest_functions()}
    if id not in known:
        raise FunctionNotFoundError(f"No function {id!r}. There is: {', '.join(sorted(known)) or 'none'}.")
    return json_response({"id": await _invoked(client, known[id], call.body.data)})


async def send(call: Call[Query, models.SendEvent]) -> Response:
    """Send an event to the engine; it begins the functions that wait for it."""
    client, body = _client(call), call.body
    event = inngest.Event(name=body.name, data=dict(body.data), id=body.id or "")
    try:
        ids = await client.send(event)
    except Exception as err:
        raise EngineError(
            f"The event {body.name!r} was not taken at {client.event_api_origin}: {err}"
        ) from err
    return json_response({"ids": ids})


def operations() -> list[Operation[Any, Any]]:
    """The table of these routes."""
    return [
        operation("GET", "/functions", list_functions, list[models.FunctionInfo]),
        operation("POST", "/functions/{functionId}/invoke", invoke, models.Invoked),
        operation("POST", "/events", send, models.EventsSent),
    ]


def _shown(function: inngest.Function[Any]) -> dict[str, Any]:
    config = function.get_config("").main
    triggers = [trigger.model_dump(mode="json", exclude_none=True) for trigger in config.triggers]
    return {"id": function.local_id, "name": function.name, "triggers": triggers}


def _client(call: Call[Any, Any]) -> inngest.Inngest:
    client = call.app.inngest
    if client is None:
        raise NoInngestClientError("This app has no Inngest client: its workflows run on the local engine.")
    return client


async def _invoked(client: inngest.Inngest, function: inngest.Function[Any], data: Mapping[str, Any]) -> str:
    """The run's id from Inngest Cloud or a self-hosted server, the event's from a dev server."""
    if client.is_production:
        version = "/v2" if client.api_origin.rstrip("/") == CLOUD else "/api/v2"
        app, id = quote(client.app_id, safe=""), quote(function.local_id, safe="")
        path = f"{version}/apps/{app}/functions/{id}/invoke"
    else:
        path = f"/invoke/{quote(function.id, safe='')}"
    api = EngineApi(client)
    try:
        answer = await api.call("POST", path, {"data": dict(data)})
    finally:
        await api.close()
    if answer.status >= HTTPStatus.BAD_REQUEST:
        reason = answer.body.decode(errors="replace")
        raise EngineError(f"Inngest at {client.api_origin} did not take the invocation: {reason}")
    taken = orjson.loads(answer.body)
    return str(taken.get("id") or taken["data"]["runId"])
