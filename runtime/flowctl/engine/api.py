"""The engine's HTTP interface: the paths and answers of the Inngest dev server."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from flowctl.engine import queries
from flowctl.engine import statements as sql
from flowctl.engine.apps import Apps, RegistrationError
from flowctl.engine.backlog import RETRY_AFTER_SECONDS, QueueFullError
from flowctl.engine.checkpoint_api import CheckpointApi, is_output
from flowctl.engine.checkpoints import Checkpoints
from flowctl.engine.endpoints import Endpoints
from flowctl.engine.ledger import Ledger
from flowctl.engine.protocol import (
    InvalidEventError,
    is_ulid,
    iso,
    new_ulid,
    parse_event,
    seeded_ulid,
    time_ms,
)
from flowctl.engine.realtime import Realtime
from flowctl.engine.signing import Keys
from flowctl.engine.store import RunRow
from flowctl.engine.timing import now_ms

BODY_LIMIT = 16 * 2**20
LIST_LIMIT = 100
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1", "host.docker.internal"})


class BadRequestError(ValueError):
    """A caller's mistake."""


def _json(body: Any, status: int = 200) -> Response:
    headers = {"x-inngest-server-kind": "dev"}
    return Response(orjson.dumps(body), status, headers, media_type="application/json")


def _refused(message: str, code: int, status: int = 200) -> Response:
    """The server's form of an error; the status of most is in the body alone, as SDKs know it."""
    return _json({"error": message, "data": None, "status": code}, status)


def _fetched(data: Any) -> Response:
    now = iso(now_ms())
    return _json({"data": data, "metadata": {"fetched_at": now, "cached_until": now}})


@dataclass(slots=True)
class Api:
    """One method a route."""

    ledger: Ledger
    apps: Apps
    realtime: Realtime
    studio_url: str | None

    def routes(self) -> list[BaseRoute]:
        """The route table."""
        return [
            Route("/", self.home),
            Route("/health", self.health),
            Route("/dev", self.dev),
            Route("/e/{key}", self.send_events, methods=["POST"]),
            Route("/fn/register", self.register, methods=["POST"]),
            Route("/invoke/{slug:path}", self.invoke, methods=["POST"]),
            Route("/v1/events", self.list_events),
            Route("/v1/events/{id}", self.get_event),
            Route("/v1/events/{id}/runs", self.event_runs),
            Route("/v1/runs/{id}", self.get_run),
            Route("/v1/runs/{id}", self.cancel_run, methods=["DELETE"]),
            Route("/v1/runs/{id}/jobs", self.run_jobs),
            Route("/v1/apps/{name}/functions", self.app_functions),
            Route("/v0/runs/{id}/batch", self.run_events),
            Route("/v0/runs/{id}/actions", self.run_steps),
            Route("/v1/signals", self.send_signal, methods=["POST"]),
            Route("/v1/cancellations", self.cancel_runs, methods=["POST"]),
            Route("/v0/gql", self.query, methods=["POST"]),
            Route("/v1/realtime/token", self.realtime_token, methods=["POST"]),
            Route("/v1/realtime/publish", self.realtime_publish, methods=["POST"]),
            WebSocketRoute("/v1/realtime/connect", self.realtime.connect),
            *CheckpointApi(
                Checkpoints(self.ledger), Endpoints(self.ledger, self.apps), self.realtime
            ).routes(),
        ]

    async def home(self, _: Request) -> Response:
        """What this is, for people who open the port in a browser."""
        link = (
            f'<p><a href="{html.escape(self.studio_url)}">Open the Studio</a></p>' if self.studio_url else ""
        )
        names = "".join(f"<li><code>{html.escape(slug)}</code></li>" for slug in self.ledger.functions)
        page = f"<!doctype html><title>flowctl engine</title><h1>flowctl engine</h1>{link}<ul>{names}</ul>"
        return HTMLResponse(page, headers={"content-security-policy": "default-src 'none'"})

    async def health(self, _: Request) -> Response:
        """Up."""
        return _json({"status": 200, "message": "OK"})

    async def dev(self, _: Request) -> Response:
        """How SDKs recognise a dev server."""
        functions = [
            {"id": f.id, "slug": f.slug, "name": f.name, "url": f.url, "triggers": f.triggers}
            for f in self.ledger.functions.values()
        ]
        return _json({"version": "flowctl", "authed": False, "functions": functions, "startOpts": {}})

    async def send_events(self, request: Request) -> Response:
        """One event or a list of them."""
        now = now_ms()
        try:
            sent = orjson.loads(await _body(request))
            seed = request.headers.get("x-inngest-event-id-seed", "")
            events = [
                parse_event(raw, now=now, internal_id=seeded_ulid(seed, index))
                for index, raw in enumerate(sent if isinstance(sent, list) else [sent])
            ]
        except orjson.JSONDecodeError as err:
            return _json({"ids": [""], "status": 400, "error": f"invalid JSON: {err}"}, 400)
        except InvalidEventError as err:
            return _json({"ids": [""], "status": 400, "error": str(err)}, 400)
        self.ledger.take_in(events)
        return _json({"ids": [event.internal_id for event in events] or [""], "status": 200})

    async def register(self, request: Request) -> Response:
        """An SDK tells what it serves."""
        try:
            return _json(self.apps.register(orjson.loads(await _body(request))))
        except (RegistrationError, orjson.JSONDecodeError) as err:
            return _refused(str(err), 400, 400)

    async def invoke(self, request: Request) -> Response:
        """Run one function by its id."""
        payload = await _object(request)
        if not isinstance(payload.get("data") or {}, dict):
            return _refused("The body must be an object with an object 'data'.", 400, 400)
        id = self.ledger.invoke(request.path_params["slug"], payload, now=now_ms())
        return _json({"id": id, "status": 200})

    async def list_events(self, request: Request) -> Response:
        """The newest events; `?name=` and `?limit=` narrow them."""
        limit = request.query_params.get("limit", "")
        count = min(int(limit), LIST_LIMIT) if limit.isdigit() else LIST_LIMIT
        return _fetched(self.ledger.store.events(name=request.query_params.get("name"), limit=count))

    async def get_event(self, request: Request) -> Response:
        """One event."""
        event = self.ledger.store.event(request.path_params["id"])
        return _fetched(event) if event else _refused("Event not found", 404)

    async def event_runs(self, request: Request) -> Response:
        """The runs that an event began."""
        id = request.path_params["id"]
        if not is_ulid(id):
            return _refused(f"Invalid event ID: {id}", 400)
        return _fetched([run.to_json() for run in self.ledger.store.runs_of_event(id)])

    async def get_run(self, request: Request) -> Response:
        """One run."""
        id = request.path_params["id"]
        if not is_ulid(id):
            return _refused(f"Invalid run ID: {id}", 400)
        run = self._run(request)
        return _fetched(run.to_json()) if run else _refused(f"Run not found: {id}", 404)

    async def cancel_run(self, request: Request) -> Response:
        """End a run as cancelled."""
        id = request.path_params["id"]
        if not self.ledger.cancel(id, now=now_ms()):
            return _refused(f"Unable to load function run: {id}", 404, 404)
        return PlainTextResponse("")

    async def run_jobs(self, request: Request) -> Response:
        """What of a run is queued."""
        rows = self.ledger.store.db.execute(sql.RUN_JOBS, (request.path_params["id"],)).fetchall()
        keys = ("id", "target", "kind", "due", "attempt", "running")
        return _fetched([dict(zip(keys, row, strict=True)) for row in rows])

    async def app_functions(self, request: Request) -> Response:
        """The functions of an app."""
        raw = self.apps.by_name.get(request.path_params["name"]) or {}
        slugs = [str(function["id"]) for function in raw.get("functions") or ()]
        found = [self.ledger.functions[slug] for slug in slugs if slug in self.ledger.functions]
        return _json(
            [
                {
                    "internal_id": f.id,
                    "app_id": f.app_id,
                    "id": f.slug,
                    "name": f.name,
                    "config": dict(f.config),
                }
                for f in found
            ]
        )

    async def run_events(self, request: Request) -> Response:
        """The events of a run, for an SDK that was given too few."""
        run = self._run(request)
        return _json(run.events) if run else _refused("Run not found", 404, 404)

    async def run_steps(self, request: Request) -> Response:
        """The steps of a run, for an SDK that was given too few."""
        return _json(self.ledger.store.steps(request.path_params["id"]))

    async def send_signal(self, request: Request) -> Response:
        """End the step that waits for a signal."""
        sent = await _object(request, "signal")
        run_id = self.ledger.signal(str(sent["signal"]), sent.get("data"), now=now_ms())
        if run_id is None:
            return _refused(f"No run waits for the signal {sent['signal']!r}.", 404, 404)
        return _fetched({"run_id": run_id})

    async def cancel_runs(self, request: Request) -> Response:
        """End a function's runs that started in a time span, all or those that fit `if`."""
        sent = await _object(request, "app_id", "function_id", "started_before")
        now, slug = now_ms(), f"{sent['app_id']}-{sent['function_id']}"
        try:
            before = time_ms(str(sent["started_before"]))
            after = time_ms(str(sent["started_after"])) if sent.get("started_after") else 0
        except ValueError as err:
            return _refused(f"A time is not in ISO form: {err}", 400, 400)
        self.ledger.cancel_many(slug, sent.get("if"), after=after, before=before, now=now)
        return _json({"id": new_ulid(now), "name": sent.get("name"), **sent}, 201)

    async def query(self, request: Request) -> Response:
        """GraphQL, as far as SDKs' tests need it."""
        asked = orjson.loads(await _body(request))
        return _json(queries.answer(self.ledger.store, str(asked["query"]), asked.get("variables") or {}))

    async def realtime_token(self, request: Request) -> Response:
        """A token to subscribe to topics of channels."""
        topics = orjson.loads(await _body(request))
        return _json({"jwt": self.realtime.token(topics)}, 201)

    async def realtime_publish(self, request: Request) -> Response:
        """Pass data on to those who subscribed."""
        query = request.query_params
        data = orjson.loads(await _body(request) or b"null")
        self.realtime.publish(query.get("channel", ""), query.get("topic", ""), data, now=now_ms())
        return PlainTextResponse("")

    def _run(self, request: Request) -> RunRow | None:
        return self.ledger.store.run(request.path_params["id"])


async def _object(request: Request, *required: str) -> dict[str, Any]:
    """A JSON object with these keys; raises BadRequestError."""
    try:
        sent = orjson.loads(await _body(request))
    except orjson.JSONDecodeError as err:
        raise BadRequestError(f"invalid JSON: {err}") from err
    if not isinstance(sent, dict):
        raise BadRequestError("The body must be an object.")
    missing = [name for name in required if not sent.get(name)]
    if missing:
        raise BadRequestError(f"The body lacks {', '.join(missing)}.")
    return sent


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_LIMIT:
            raise InvalidEventError("the body is too large")
    return bytes(body)


class LocalOnly:
    """Refuses what a web page could make a browser send to a port of this machine."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 403 for foreign Host and Origin headers."""
        if scope["type"] in {"http", "websocket"} and not _is_local(dict(scope["headers"])):
            await PlainTextResponse("This engine answers its own machine only.", 403)(scope, receive, send)
            return
        await self.app(scope, receive, send)


def _is_local(headers: dict[bytes, bytes]) -> bool:
    host = urlsplit(f"//{headers.get(b'host', b'localhost').decode('latin-1')}").hostname
    origin = headers.get(b"origin")
    if host not in LOOPBACK and host != "0.0.0.0":  # noqa: S104 - SDKs' tests call it so; no name can be rebound to it
        return False
    return not origin or urlsplit(origin.decode("latin-1")).hostname in LOOPBACK


class Authorized:
    """Lets in who bears a signing key's hash, or sends events with an event key; health is for everybody."""

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self.app, self.keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401 to others."""
        if scope["type"] in {"http", "websocket"} and not self._may(scope["path"], dict(scope["headers"])):
            answer = _refused("This engine needs a valid key.", 401, 401)
            await answer(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _may(self, path: str, headers: dict[bytes, bytes]) -> bool:
        if path.startswith("/e/"):
            return self.keys.takes_event(path.removeprefix("/e/"))
        open_to_all = path in {"/health", "/v1/realtime/connect"} or is_output(path)  # they check tokens
        return open_to_all or self.keys.lets_in(headers.get(b"authorization", b"").decode("latin-1"))


def create_api(api: Api, keys: Keys, *, local_only: bool) -> ASGIApp:
    """The ASGI application."""
    app = Starlette(
        routes=api.routes(),
        exception_handlers={InvalidEventError: _too_large, BadRequestError: _bad, QueueFullError: _full},
    )
    authorized = Authorized(app, keys)
    return LocalOnly(authorized) if local_only else authorized


async def _bad(_: Request, err: Exception) -> Response:
    return _refused(str(err), 400, 400)


async def _full(_: Request, err: Exception) -> Response:
    answer = _refused(str(err), 503, 503)
    answer.headers["retry-after"] = str(RETRY_AFTER_SECONDS)
    return answer


async def _too_large(_: Request, err: Exception) -> Response:
    return _refused(str(err), 413, 413)
