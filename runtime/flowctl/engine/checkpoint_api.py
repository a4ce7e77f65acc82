"""The HTTP routes of checkpoints; each is there under the older prefix `/v1/http/runs` as well."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from flowctl.engine.checkpoints import CheckpointError, Checkpoints
from flowctl.engine.executor import now_ms
from flowctl.engine.limits import MAX_STATE_BYTES

PREFIXES = ("/v1/checkpoint", "/v1/http/runs")


@dataclass(slots=True)
class CheckpointApi:
    """One method a route."""

    checkpoints: Checkpoints

    def routes(self) -> list[BaseRoute]:
        """The route table."""
        return [Route(f"{prefix}/{{id}}/async", self.keep_steps, methods=["POST"]) for prefix in PREFIXES]

    async def keep_steps(self, request: Request) -> Response:
        """Steps of a request that the engine made and that goes on."""
        id = request.path_params["id"]
        try:
            self.checkpoints.keep(id, await _sent(request), now=now_ms())
        except CheckpointError as err:
            return _refused(err, id)
        return Response(status_code=200)


async def _sent(request: Request) -> Mapping[str, Any]:
    """The JSON object of a request; raises CheckpointError."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_STATE_BYTES:
            raise CheckpointError("invalid request body: it is too large")
    try:
        sent = orjson.loads(body)
    except orjson.JSONDecodeError as err:
        raise CheckpointError(f"invalid request body: {err}") from err
    if not isinstance(sent, dict):
        raise CheckpointError("invalid request body: it is not an object")
    return sent


def _refused(err: CheckpointError, run_id: str) -> Response:
    body = {"error": str(err), "data": {"run_id": run_id}, "status": err.http_status}
    return Response(orjson.dumps(body), err.http_status, media_type="application/json")
