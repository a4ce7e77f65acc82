"""The engine's HTTP interface: the paths and answers of the Inngest dev server, put together.

Here is what SDKs call; `rest`, `checkpoint_api` and `realtime_api` have the other routes.
"""

from __future__ import annotations

import html
import logging
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from flowctl.engine.access import LOCAL_ORIGIN, Authorized, LocalOnly, ServerKind
from flowctl.engine.answers import (
    BODIES_BYTES,
    BodyTooLargeError,
    NotFoundError,
    RequestError,
    json_answer,
    overloaded,
    read_body,
    read_json,
    read_object,
    refused,
)
from flowctl.engine.apps import Apps
from flowctl.engine.backlog import OverloadedError
from flowctl.engine.budget import ByteBudget
from flowctl.engine.checkpoint_api import CheckpointApi
from flowctl.engine.checkpoints import Checkpoints
from flowctl.engine.endpoints import Endpoints
from flowctl.engine.intake import parse_events
from flowctl.engine.ledger import Ledger
from flowctl.engine.metrics import exposition
from flowctl.engine.protocol import InvalidEventError
from flowctl.engine.queries import Asked, Queries, answer, refusal
from flowctl.engine.realtime import Tokens
from flowctl.engine.realtime_api import RealtimeApi
from flowctl.engine.registration import RegistrationError
from flowctl.engine.rest import Rest
from flowctl.engine.rest_v2 import RestV2
from flowctl.engine.signing import Keys
from flowctl.engine.store import RunRow
from flowctl.engine.timing import Clock

log = logging.getLogger("flowctl.engine")


@dataclass(slots=True)
class Api:
    """One method a route."""

    ledger: Ledger
    apps: Apps
    keys: Keys
    tokens: Tokens
    clock: Clock
    studio_url: str | None
    backoff: Sequence[int]

    def routes(self) -> list[BaseRoute]:
        """The route table: looked through from the top, so what every step asks for comes first."""
        return [
            Route("/e/{key}", self.send_events, methods=["POST"]),
            *CheckpointApi(
                Checkpoints(self.ledger),
                Endpoints(self.ledger, self.apps, self.backoff),
                self.tokens,
                self.clock,
            ).routes(),
            *RealtimeApi(self.keys, self.tokens, self.clock).routes(),
            Route("/", self.home),
            Route("/health", self.health),
            Route("/metrics", self.metrics),
            Route("/dev", self.dev),
            Route("/fn/register", self.register, methods=["POST"]),
            Route("/fn/remove", self.remove, methods=["DELETE"]),
            Route("/invoke/{slug:path}", self.invoke, methods=["POST"]),
            Route("/v0/runs/{id}/batch", self.run_events),
            Route("/v0/runs/{id}/actions", self.run_steps),
            Route("/v0/gql", self.query, methods=["POST"]),
            *Rest(self.ledger, self.apps, self.clock).routes(),
            *RestV2(self.ledger, self.apps, self.clock).routes(),
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
        return json_answer({"status": 200, "message": "OK"})

    async def metrics(self, _: Request) -> Response:
        """Counts and durations, as Prometheus reads them."""
        return PlainTextResponse(
            exposition(self.ledger.tally, self.ledger.store, now=self.clock.now()),
            media_type="text/plain; version=0.0.4",
        )

    async def dev(self, _: Request) -> Response:
        """How SDKs recognise a dev server; one with keys is none."""
        if self.keys.signs:
            raise NotFoundError("This is no development server.")
        functions = [function.to_json() for _, function in sorted(self.ledger.functions.items())]
        return json_answer(
            {
                "version": "flowctl",
                "authed": False,
                "startOpts": {},
                "functions": functions,
                "handlers": [],
                "isSingleNodeService": False,
                "isMissingSigningKey": False,
                "isMissingEventKeys": False,
                "features": {},
            }
        )

    async def send_events(self, request: Request) -> Response:
        """One event or a list of them: all are taken in, or none."""
        seed = request.headers.get("x-inngest-event-id-seed", "")
        try:
            events = parse_events(await read_body(request), seed=seed, now=self.clock.now())
        except (InvalidEventError, BodyTooLargeError) as err:
            return json_answer({"ids": [""], "status": 400, "error": str(err)}, 400)
        self.ledger.take_in(events)
        return json_answer({"ids": [event.internal_id for event in events] or [""], "status": 200})

    async def register(self, request: Request) -> Response:
        """An SDK tells what it serves."""
        expected = request.headers.get("x-inngest-expected-server-kind")
        if expected and expected != self.keys.kind:
            return refused(
                f"Expected server kind {expected}, but this server's is {self.keys.kind}: "
                + _KIND_ADVICE[self.keys.kind],
                400,
            )
        try:
            return json_answer(self.apps.register(await read_json(request)))
        except RegistrationError as err:
            return json_answer({"error": str(err), "data": {"faults": err.faults}, "status": 400}, 400)

    async def remove(self, request: Request) -> Response:
        """Forget the app that is served at `?url=`."""
        url = request.query_params.get("url", "")
        name = self.apps.named_at(url)
        if name is None:
            raise NotFoundError(f"App not found: {url}")
        self.apps.remove(name, now=self.clock.now())
        return PlainTextResponse("")

    async def invoke(self, request: Request) -> Response:
        """Run one function by its id."""
        payload = await read_object(request)
        try:
            made = self.ledger.invoke(request.path_params["slug"], payload, now=self.clock.now())
        except (InvalidEventError, TypeError) as err:
            raise RequestError(f"The body must be an object with an object 'data': {err}") from err
        return json_answer({"id": made.event_id, "status": 200})

    async def run_events(self, request: Request) -> Response:
        """The events of a run, for an SDK that was given too few."""
        return json_answer(self._run(request).events)

    async def run_steps(self, request: Request) -> Response:
        """The steps of a run, for an SDK that was given too few."""
        return json_answer(self.ledger.store.steps(self._run(request).run_id))

    async def query(self, request: Request) -> Response:
        """GraphQL, as far as SDKs' tests need it."""
        try:
            asked = Asked.of(await read_object(request))
        except RequestError as err:
            return json_answer(refusal({"message": str(err)}), err.http_status)
        return json_answer(*answer(Queries(self.apps, self.clock), asked))

    async def failed(self, request: Request, err: Exception) -> Response:
        """The database has failed: what is answered names no key that stands in the path."""
        self.ledger.tally.database_errors += 1
        log.error("The database failed at %s: %s", request.scope["endpoint"].__name__, err)
        return overloaded(f"The engine's database failed, and nothing of the request was kept: {err}")

    async def refuse(self, _: Request, err: Exception) -> Response:
        """Too much is queued, or sent at once."""
        self.ledger.tally.refused += 1
        return overloaded(str(err))

    def _run(self, request: Request) -> RunRow:
        run = self.ledger.store.run(request.path_params["id"])
        if run is None:
            raise NotFoundError(f"Run not found: {request.path_params['id']}")
        return run


_KIND_ADVICE = {
    "dev": "start it with --signing-key, or let the SDK run in development mode (INNGEST_DEV=1).",
    "cloud": "give the SDK the engine's signing key, and no INNGEST_DEV.",
}


def create_api(api: Api, *, local_only: bool) -> ASGIApp:
    """The ASGI application."""
    cors = Middleware(
        CORSMiddleware,
        allow_origin_regex=LOCAL_ORIGIN if local_only else ".*",
        allow_methods=["GET", "POST", "PUT", "DELETE"],
        allow_headers=["*"],
    )
    handlers = {
        RequestError: _mistake,
        OverloadedError: api.refuse,
        sqlite3.Error: api.failed,
        ClientDisconnect: _gone,
    }
    app = Starlette(routes=api.routes(), exception_handlers=handlers, middleware=[cors])
    app.state.bodies = ByteBudget(BODIES_BYTES)
    authorized = Authorized(app, api.keys)
    return ServerKind(LocalOnly(authorized) if local_only else authorized, api.keys.kind)


async def _mistake(_: Request, err: Exception) -> Response:
    status = err.http_status if isinstance(err, RequestError) else 500
    return refused(str(err), status)


async def _gone(_: Request, __: Exception) -> Response:
    """The sender went away in the middle of its request, so nobody reads this."""
    return Response(status_code=400)
