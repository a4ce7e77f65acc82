"""The REST API, version 1: events, runs, jobs, cancellations, signals, apps.

Called by `api`. Reads the store and changes runs through the ledger; nothing is cached.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from flowctl.engine import rest_statements as sql
from flowctl.engine.answers import (
    NotFoundError,
    RequestError,
    fetched,
    json_answer,
    read_body,
    read_object,
    refused,
)
from flowctl.engine.apps import Apps
from flowctl.engine.cancellations import Cancellation, Cancellations
from flowctl.engine.ends import RUN_STATUSES
from flowctl.engine.ledger import Ledger
from flowctl.engine.protocol import ENVIRONMENT_ID, Function, is_ulid, iso, time_ms
from flowctl.engine.run_metadata import InvalidMetadataError, hashed_step, notes_of
from flowctl.engine.store import event_json
from flowctl.engine.timing import Clock

DEFAULT_LIMIT, MAX_LIMIT = 20, 100
MAX_SPANS_BYTES = 8 * 2**20


@dataclass(slots=True)
class Rest:
    """One method a route."""

    ledger: Ledger
    apps: Apps
    clock: Clock

    def routes(self) -> list[BaseRoute]:
        """The route table."""
        return [
            Route("/v1/events", self.list_events),
            Route("/v1/events/{id}", self.get_event),
            Route("/v1/events/{id}/runs", self.event_runs),
            Route("/v1/runs", self.list_runs),
            Route("/v1/runs/{id}", self.get_run),
            Route("/v1/runs/{id}", self.cancel_run, methods=["DELETE"]),
            Route("/v1/runs/{id}/jobs", self.run_jobs),
            Route("/v1/runs/{id}/metadata", self.add_metadata, methods=["POST"]),
            Route("/v1/apps", self.list_apps),
            Route("/v1/apps/{name}", self.remove_app, methods=["DELETE"]),
            Route("/v1/apps/{name}/functions", self.app_functions),
            Route("/v1/signals", self.send_signal, methods=["POST"]),
            Route("/v1/cancellations", self.cancel_runs, methods=["POST"]),
            Route("/v1/cancellations", self.list_cancellations),
            Route("/v1/cancellations/{id}", self.delete_cancellation, methods=["DELETE"]),
            Route("/v1/traces/userland", self.take_spans, methods=["POST"]),
        ]

    async def list_events(self, request: Request) -> Response:
        """Events, newest first: `limit`, `cursor` (the last id of a page), `name`, `received_before/after`.

        The engine's own events come only when they are asked for by name.
        """
        query = request.query_params
        page = _page(request)
        span = {
            "after": _moment(request, "received_after", 0),
            "before": _moment(request, "received_before", 2**62),
        }
        statement = sql.EVENTS_NAMED if query.get("name") else sql.EVENTS
        rows = self.ledger.store.db.execute(statement, {**page, **span, "name": query.get("name")})
        return fetched([event_json(row) for *row, copies in rows.fetchall() for _ in range(copies)])

    async def get_event(self, request: Request) -> Response:
        """One event."""
        id = request.path_params["id"]
        if not is_ulid(id):
            return refused(f"Invalid event ID: {id}", 400, 200)
        event = self.ledger.store.event(id)
        return fetched(event) if event else refused("Event not found", 404, 200)

    async def event_runs(self, request: Request) -> Response:
        """The runs that an event began."""
        id = request.path_params["id"]
        if not is_ulid(id):
            return refused(f"Invalid event ID: {id}", 400, 200)
        return fetched([run.to_json() for run in self.ledger.store.runs_of_event(id)])

    async def list_runs(self, request: Request) -> Response:
        """Runs, newest first: `limit`, `cursor`, `status`, `function` (its slug), `started_before/after`."""
        query = request.query_params
        wanted = {
            **_page(request),
            "after": _moment(request, "started_after", 0),
            "before": _moment(request, "started_before", 2**62),
            "status": _status(request),
            "slug": query.get("function"),
        }
        rows = self.ledger.store.db.execute(sql.RUNS, wanted).fetchall()
        return fetched([_listed_run(row) for row in rows])

    async def get_run(self, request: Request) -> Response:
        """One run."""
        id = request.path_params["id"]
        if not is_ulid(id):
            return refused(f"Invalid run ID: {id}", 400, 200)
        run = self.ledger.store.run(id)
        return fetched(run.to_json()) if run else refused(f"Run not found: {id}", 404, 200)

    async def cancel_run(self, request: Request) -> Response:
        """End a run as cancelled; one that has ended stays as it is."""
        id = _id(request, "run")
        if not self.ledger.cancel(id, now=self.clock.now()):
            raise NotFoundError(f"Unable to load function run: {id}")
        return PlainTextResponse("")

    async def run_jobs(self, request: Request) -> Response:
        """What of a run is queued, soonest first."""
        id = _id(request, "run")
        if self.ledger.store.run(id) is None:
            raise NotFoundError(f"Unable to load function run: {id}")
        rows = self.ledger.store.db.execute(sql.RUN_JOBS, (id,)).fetchall()
        return fetched([_job(position, row) for position, row in enumerate(rows)])

    async def add_metadata(self, request: Request) -> Response:
        """Note something of a run, or of the step that `target` names by its author's id and index."""
        id, sent, store = _id(request, "run"), await read_object(request), self.ledger.store
        target = sent.get("target") or {}
        step_id = target.get("step_id")
        try:
            hashed = hashed_step(str(step_id), int(target.get("step_index") or 0)) if step_id else ""
            notes = notes_of(sent.get("metadata"), hashed)
            with store.transaction():
                if store.run(id) is None:
                    raise NotFoundError(f"Run not found: {id}")
                self.ledger.metadata.add(id, notes, now=self.clock.now())
        except (AttributeError, TypeError, InvalidMetadataError) as err:
            raise RequestError(f"Invalid metadata: {err}") from err
        return PlainTextResponse("")

    async def list_apps(self, _: Request) -> Response:
        """The apps and when each was synced."""
        return fetched(self.apps.to_json())

    async def remove_app(self, request: Request) -> Response:
        """Forget an app and its functions; their open runs are cancelled."""
        name = request.path_params["name"]
        if not self.apps.remove(name, now=self.clock.now()):
            raise NotFoundError(f"App not found: {name}")
        return fetched({"ok": True})

    async def app_functions(self, request: Request) -> Response:
        """The functions of an app."""
        found = self.apps.functions_of(request.path_params["name"])
        return json_answer([_function(function) for function in found])

    async def send_signal(self, request: Request) -> Response:
        """End the step that waits for a signal."""
        sent = await read_object(request, "signal")
        name = sent["signal"]
        if not isinstance(name, str):
            raise RequestError(f"'signal' must be text, not {name!r:.100}.")
        run_id = self.ledger.signal(name, sent.get("data"), now=self.clock.now())
        if run_id is None:
            raise NotFoundError(f"No run waits for the signal {name!r}.")
        return fetched({"run_id": run_id})

    async def cancel_runs(self, request: Request) -> Response:
        """End a function's runs that started in a time span, all or those that fit `if`."""
        sent = await read_object(request)
        cancellation = Cancellation.of(sent, now=self.clock.now())
        if cancellation.slug not in self.ledger.functions:
            raise NotFoundError(
                f"function not found: app {cancellation.app_id!r} has none with the id "
                f"{cancellation.function_id!r}"
            )
        return fetched(Cancellations(self.ledger).create(cancellation))

    async def list_cancellations(self, _: Request) -> Response:
        """Every cancellation that was made and not deleted."""
        return fetched(Cancellations(self.ledger).all())

    async def delete_cancellation(self, request: Request) -> Response:
        """Forget a cancellation; what it ended stays ended."""
        if not Cancellations(self.ledger).delete(_id(request, "cancellation")):
            raise NotFoundError("Cancellation not found")
        return fetched({"ok": True})

    async def take_spans(self, request: Request) -> Response:
        """Spans of SDKs' extended traces, by OTLP in JSON or protobuf: they are taken, and not kept."""
        kind = request.headers.get("content-type", "")
        if "json" not in kind:
            await read_body(request, limit=MAX_SPANS_BYTES)
            return Response(b"", media_type="application/x-protobuf")
        await read_object(request, limit=MAX_SPANS_BYTES)
        return json_answer({})


def _id(request: Request, what: str) -> str:
    id = request.path_params["id"]
    if not is_ulid(id):
        raise RequestError(f"Invalid {what} ID: {id}")
    return id


def _page(request: Request) -> dict[str, Any]:
    limit, cursor = request.query_params.get("limit", ""), request.query_params.get("cursor")
    if cursor and not is_ulid(cursor):
        raise RequestError("Invalid cursor query parameter")
    wanted = int(limit) if limit.isdecimal() and int(limit) > 0 else DEFAULT_LIMIT
    return {"limit": min(wanted, MAX_LIMIT), "cursor": cursor or "~"}


def _status(request: Request) -> str | None:
    text = request.query_params.get("status")
    if text and text.capitalize() not in RUN_STATUSES:
        raise RequestError(f"Invalid status query parameter {text!r}: one of {', '.join(RUN_STATUSES)}")
    return text or None


def _moment(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name)
    if not text:
        return default
    try:
        return int(text) if text.isdecimal() else time_ms(text)
    except ValueError as err:
        raise RequestError(f"Invalid {name} query parameter") from err


def _function(function: Function) -> dict[str, Any]:
    return {
        "internal_id": function.id,
        "env_id": ENVIRONMENT_ID,
        "app_id": function.app_id,
        "id": function.slug,
        "name": function.name,
        "config": function.to_json(),
    }


def _listed_run(row: tuple[Any, ...]) -> dict[str, Any]:
    run_id, slug, function_id, event_id, status, started, ended = row
    return {
        "run_id": run_id,
        "function_id": function_id,
        "function_slug": slug,
        "event_id": event_id,
        "status": status,
        "run_started_at": iso(started),
        "ended_at": iso(ended) if ended else None,
    }


def _job(position: int, row: tuple[Any, ...]) -> dict[str, Any]:
    id, target, kind, due, attempt, taken = row
    return {
        "JobID": str(id),
        "at": iso(due),
        "position": position,
        "kind": kind,
        "attempt": attempt,
        "target": target,
        "running": taken == 1,
    }
