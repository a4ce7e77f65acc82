"""The second version of the REST API, as far as apps use it: they invoke a function by its name and its app.

Inngest Cloud has it under `/v2`, a self-hosted server under `/api/v2`; here it is under both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from flowctl.engine import rest_statements as sql
from flowctl.engine.answers import RequestError, fetched, json_answer, read_json
from flowctl.engine.apps import Apps
from flowctl.engine.ledger import DEDUPE_MS, Ledger
from flowctl.engine.protocol import Function, InvalidEventError
from flowctl.engine.starts import RATE_LIMITED
from flowctl.engine.store import RunRow
from flowctl.engine.timing import Clock

PREFIXES = ("/v2", "/api/v2")
PATH = "/apps/{app}/functions/{function}/invoke"


@dataclass(slots=True)
class RestV2:
    """One method a route."""

    ledger: Ledger
    apps: Apps
    clock: Clock

    def routes(self) -> list[BaseRoute]:
        """The route table."""
        return [Route(prefix + PATH, self.invoke, methods=["POST"]) for prefix in PREFIXES]

    async def invoke(self, request: Request) -> Response:
        """Start a function with `data`; one more with the same `idempotencyKey` gives the first run (409)."""
        app, id = request.path_params["app"], request.path_params["function"]
        try:
            sent = await read_json(request)
        except RequestError as err:
            return _refused(err.http_status, "invalid_request", str(err))
        if not isinstance(sent, dict) or not isinstance(sent.get("data"), dict):
            return _refused(400, "missing_field", "Input data is required: an object 'data'.")
        function = self._named(app, id)
        if function is None:
            return _refused(404, "not_found", f"The app {app!r} has no function {id!r}.")
        return self._invoked(function, sent)

    def _invoked(self, function: Function, sent: Mapping[str, Any]) -> Response:
        now, event_id = self.clock.now(), _event_id(function, sent.get("idempotencyKey"))
        if event_id is not None and (earlier := self._run_of(event_id, since=now - DEDUPE_MS)):
            return _run(earlier, 409)
        try:
            made = self.ledger.invoke(function.slug, {"data": sent["data"], "id": event_id}, now=now)
        except InvalidEventError as err:
            return _refused(400, "invalid_request", str(err))
        runs = self.ledger.store.runs_of_event(made.event_id)
        return _run(runs[0], 201) if runs else _held_back(function, made.refusal)

    def _named(self, app: str, id: str) -> Function | None:
        """A function by the id that its app gives it, or by the full one."""
        wanted = {id, f"{app}-{id}"}
        return next((known for known in self.apps.functions_of(app) if known.slug in wanted), None)

    def _run_of(self, event_id: str, *, since: int) -> RunRow | None:
        row = self.ledger.store.db.execute(sql.FIRST_EVENT_BY_ID, (event_id, since)).fetchone()
        runs = self.ledger.store.runs_of_event(row[0]) if row else []
        return runs[0] if runs else None


def _event_id(function: Function, key: object) -> str | None:
    """Of the event for an idempotency key."""
    if not key:
        return None
    return f"invoke/{function.slug}/{hashlib.sha256(str(key).encode()).hexdigest()[:32]}"


def _run(run: RunRow, status: int) -> Response:
    answer = fetched({"runId": run.run_id})
    answer.status_code = status
    return answer


def _held_back(function: Function, refusal: str | None) -> Response:
    if refusal == RATE_LIMITED:
        return _refused(422, "rate_limited", "The function's rate limit is used up; try again later.")
    if refusal is not None:
        return _refused(422, "function_skipped", "The function is a singleton, and runs already.")
    kind = "debounced" if function.config.get("debounce") else "batched"
    return _refused(422, f"function_{kind}", f"The invocation was {kind}: its run starts later.")


def _refused(status: int, code: str, message: str) -> Response:
    return json_answer({"errors": [{"code": code, "message": message}]}, status)
