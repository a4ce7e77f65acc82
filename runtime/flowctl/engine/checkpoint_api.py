"""The HTTP routes of checkpoints; each is there under the older prefix `/v1/http/runs` as well."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from flowctl.engine.answers import read_body
from flowctl.engine.checkpoints import CheckpointError, Checkpoints
from flowctl.engine.endpoints import Endpoints
from flowctl.engine.limits import MAX_STATE_BYTES
from flowctl.engine.protocol import parsed_json
from flowctl.engine.realtime import RAW_TOPIC, Tokens
from flowctl.engine.store import RunRow
from flowctl.engine.timing import Clock

P = ParamSpec("P")
T = TypeVar("T")
PREFIXES = ("/v1/checkpoint", "/v1/http/runs")
OF_ITS_OWN_BODY = frozenset({"content-length", "content-encoding", "transfer-encoding"})
OUTPUT_SECONDS = 300
POLL_SECONDS = 0.1


@dataclass(slots=True)
class CheckpointApi:
    """One method a route."""

    checkpoints: Checkpoints
    endpoints: Endpoints
    tokens: Tokens
    clock: Clock

    def routes(self) -> list[BaseRoute]:
        """The route table."""
        return [route for prefix in PREFIXES for route in self._routes(prefix)]

    def _routes(self, prefix: str) -> list[BaseRoute]:
        return [
            Route(prefix, self.begin_run, methods=["POST"]),
            Route(f"{prefix}/{{id}}/steps", self.report_steps, methods=["POST"]),
            Route(f"{prefix}/{{id}}/async", self.keep_steps, methods=["POST"]),
            Route(f"{prefix}/{{id}}/output", self.output),
        ]

    async def begin_run(self, request: Request) -> Response:
        """An app's endpoint has begun a run."""
        try:
            run = _done(self.endpoints.begin, await _sent(request), now=self.clock.now())
        except CheckpointError as err:
            return _refused(err, None)
        answer = {
            "run_id": run.run_id,
            "fn_id": run.function_id,
            "app_id": self.endpoints.app_id(run),
            "token": self.endpoints.token(run.run_id),
            "realtime_token": self.tokens.made([(run.run_id, RAW_TOPIC)], now=self.clock.now()),
        }
        return Response(orjson.dumps({"data": answer}), media_type="application/json")

    async def report_steps(self, request: Request) -> Response:
        """Steps of a run that an endpoint has begun, its end among them."""
        id = request.path_params["id"]
        try:
            _done(self.endpoints.report, id, await _sent(request), now=self.clock.now())
        except CheckpointError as err:
            return _refused(err, id)
        return Response(status_code=200)

    async def keep_steps(self, request: Request) -> Response:
        """Steps of a request that the engine made and that goes on."""
        id = request.path_params["id"]
        try:
            _done(self.checkpoints.keep, id, await _sent(request), now=self.clock.now())
        except CheckpointError as err:
            return _refused(err, id)
        return Response(status_code=200)

    async def output(self, request: Request) -> Response:
        """What a run came to, as its endpoint would have answered; waits five minutes for its end."""
        token = request.query_params.get("token", "")
        deadline = time.monotonic() + OUTPUT_SECONDS
        while (run := self.endpoints.run_of(token)) is not None and run.ended_at is None:
            if time.monotonic() > deadline:
                return _json({"status": "running", "message": "run did not end within 5 minutes"}, 200)
            await asyncio.sleep(POLL_SECONDS)
        if run is None:
            return _json({"error": "Unable to find run with auth token", "data": None, "status": 401}, 401)
        return _output(run)


def is_output(path: str) -> bool:
    """Whether a path is that of an output, which a token opens."""
    return path.startswith(tuple(f"{prefix}/" for prefix in PREFIXES)) and path.endswith("/output")


def _output(run: RunRow) -> Response:
    output = run.output
    result = output.get("data", output) if isinstance(output, dict) else output
    if isinstance(result, dict) and isinstance(result.get("status"), int):
        kept = (result.get("headers") or {}).items()
        headers = {name: str(value) for name, value in kept if name.lower() not in OF_ITS_OWN_BODY}
        return Response(str(result.get("body") or ""), result["status"], headers)
    return _json({"data" if run.status == "Completed" else "error": output}, 200)


def _json(body: Any, status: int) -> Response:
    return Response(orjson.dumps(body), status, media_type="application/json")


async def _sent(request: Request) -> Mapping[str, Any]:
    """The JSON object of a request; raises CheckpointError, and as `read_body` does."""
    body = await read_body(request, limit=MAX_STATE_BYTES)
    try:
        sent = parsed_json(body)
    except ValueError as err:
        raise CheckpointError(f"invalid request body: {err}") from err
    if not isinstance(sent, dict):
        raise CheckpointError("invalid request body: it is not an object")
    return sent


def _done(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do what a body asks for; raises CheckpointError for one that is not as the protocol says."""
    try:
        return work(*args, **kwargs)
    except (AttributeError, KeyError, TypeError, ValueError) as err:
        raise CheckpointError(f"invalid request body: {err!r}") from err


def _refused(err: CheckpointError, run_id: str | None) -> Response:
    data = {"run_id": run_id} if run_id else None
    return _json({"error": str(err), "data": data, "status": err.http_status}, err.http_status)
