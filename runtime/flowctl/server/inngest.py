"""`/api/inngest`: the endpoint that Inngest calls, for any ASGI application.

The only file that knows how inngest-py takes requests: it has no adapter of its own for Starlette.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import inngest
from inngest._internal import comm_lib, server_lib
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from flowctl import telemetry
from flowctl.errors import DefinitionError

if TYPE_CHECKING:
    from flowctl.app import App

BODY_LIMIT = 64 * 2**20


class Endpoint:
    """See `flowctl.serve`."""

    def __init__(self, app: App, functions: list[inngest.Function[Any]]) -> None:
        self._app, self._functions = app, functions
        self._handler: Any = None
        _unique([*app.functions, *functions])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer introspection (GET), calls (POST) and syncs (PUT)."""
        if scope["type"] != "http":
            return
        try:
            request = Request(scope, receive)
            with telemetry.continued(request.headers):
                response = await self._respond(request)
        except ClientDisconnect:
            return
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        client = self._app.inngest
        if client is None:
            reason = "This app has no Inngest client: its workflows run on the local engine."
            if self._app.functions or self._functions:
                reason += " Its functions are not served: pass their client to App(inngest=…)."
            return JSONResponse({"error": reason, "code": "NO_INNGEST_CLIENT"}, 404)
        if request.method not in {"GET", "POST", "PUT"}:
            return JSONResponse({"error": "Method not allowed"}, 405, {"allow": "GET, POST, PUT"})
        if self._handler is None:
            self._handler = comm_lib.CommHandler(
                client=client,
                framework=server_lib.Framework.FAST_API,
                functions=self._served(client),
                streaming=None,
                enable_unauthed_sync=None,
            )
        body = await _body(request)
        if body is None:
            return JSONResponse({"error": "The body is too large."}, 413)
        request.state.engine_body = body
        asked = comm_lib.CommRequest(
            body=body,
            headers={name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers.raw},
            public_path=None,
            query_params=dict(request.query_params),
            raw_request=request,
            request_url=str(request.url) if request.method == "PUT" else "",  # a sync alone says where it is
            serve_origin=None,
            serve_path=None,
        )
        if request.method == "GET":
            return _answer(self._handler.get_sync(asked))
        return _answer(await (self._handler.post if request.method == "POST" else self._handler.put)(asked))

    def _served(self, client: inngest.Inngest) -> list[inngest.Function[Any]]:
        of_users, runner = {*self._app.functions, *self._functions}, self._app.inngest_runner
        return [
            runner.checkpointed(function, client) if function in of_users else function
            for function in _unique([*self._app.inngest_functions(), *self._functions])
        ]


async def _body(request: Request) -> bytes | None:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_LIMIT:
            return None
    return bytes(body)


def _answer(answer: Any) -> Response:
    if answer.stream is not None:
        return StreamingResponse(answer.stream(), answer.status_code, answer.headers)
    return Response(json.dumps(answer.body).encode(), answer.status_code, answer.headers)


def _unique(functions: Sequence[inngest.Function[Any]]) -> list[inngest.Function[Any]]:
    by_id: dict[str, inngest.Function[Any]] = {}
    for function in functions:
        if by_id.setdefault(function.local_id, function) is not function:
            raise DefinitionError(f"Two functions have the id {function.local_id!r}: rename one.")
    return list(by_id.values())
