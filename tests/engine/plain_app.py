"""An engine and an app that speaks its protocol by hand, so that it may say anything."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import orjson
from engine_world import served, until
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from flowctl.engine import Engine, EngineConfig
from flowctl.engine.timing import Clock

SDK = {"x-inngest-sdk": "plain:v0.0.0", "x-inngest-req-version": "2"}
"""What every SDK says in its answers."""
Handler = Callable[["Asked"], Awaitable[Response]]


class Asked:
    """One request of the engine, and the checkpoints that an SDK would send while it answers."""

    def __init__(self, engine_url: str, http: httpx.AsyncClient, request: Request, body: Any) -> None:
        self.url, self.http, self.headers, self.body = engine_url, http, request.headers, body
        self.ctx, self.steps, self.target = body["ctx"], body["steps"], request.query_params["stepId"]

    async def checkpoint(self, *steps: dict[str, Any], **other: Any) -> httpx.Response:
        body = {
            "run_id": self.ctx["run_id"],
            "fn_id": self.ctx["fn_id"],
            "qi_id": self.ctx["qi_id"],
            "request_id": self.headers["x-request-id"],
            "generation_id": int(self.headers["x-inngest-generation-id"]),
            "steps": steps,
        } | other
        url = f"{self.url}/v1/checkpoint/{self.ctx['run_id']}/async"
        return await self.http.post(url, content=orjson.dumps(body))


def ran(id: str, data: Any = None) -> dict[str, Any]:
    return {"op": "StepRun", "id": id, "displayName": id, "data": data}


def ended(data: Any = None) -> Response:
    return JSONResponse([{"op": "RunComplete", "id": "complete", "data": data}], 206)


class PlainApp:
    """An engine and an app that speaks the protocol by hand."""

    def __init__(
        self, engine: Engine, http: httpx.AsyncClient, listener: socket.socket, clock: Clock | None
    ) -> None:
        self.engine, self.http, self.asked = engine, http, list[Asked]()
        self.listener, self.handler, self.clock = listener, Handler, clock
        self.query = "fnId=c-f&stepId=step"

    async def call(self, request: Request) -> Response:
        asked = Asked(self.engine.url, self.http, request, orjson.loads(await request.body()))
        self.asked.append(asked)
        answer = await self.handler(asked)
        for name, value in SDK.items():
            answer.headers.setdefault(name, value)
        return answer

    async def run(self, handler: Handler, *, retries: int = 3) -> dict[str, Any]:
        """Begin a run that `handler` answers; its end."""
        await self.begin(handler, retries=retries)
        return await self.ended()

    async def begin(self, handler: Handler, *, retries: int = 3) -> None:
        self.handler = handler
        url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/fn?{self.query}"
        step = {"id": "step", "name": "step", "runtime": {"type": "http", "url": url}}
        step["retries"] = {"attempts": retries}
        function = {"id": "c-f", "name": "f", "triggers": [{"event": "c/f"}], "steps": {"step": step}}
        body = {"appName": "c", "url": url, "functions": [function]}
        (await self.http.post(f"{self.engine.url}/fn/register", json=body)).raise_for_status()
        await self.send({})

    async def send(self, data: dict[str, Any]) -> None:
        """Begin another run."""
        answer = await self.http.post(f"{self.engine.url}/e/k", json={"name": "c/f", "data": data})
        self.event_id = answer.json()["ids"][0]

    async def ended(self) -> dict[str, Any]:
        async def check() -> Any:
            answer = await self.http.get(f"{self.engine.url}/v1/events/{self.event_id}/runs")
            return next((run for run in answer.json()["data"] if run["ended_at"]), None)

        return await until(check, "the end of the run")


@contextlib.asynccontextmanager
async def plain_app(clock: Clock | None = None) -> AsyncIterator[PlainApp]:
    """One, served to an engine of its own."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    async with contextlib.AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=10))
        engine = await stack.enter_async_context(Engine(EngineConfig(port=0), clock=clock))
        made = PlainApp(engine, http, listener, clock)
        asgi = Starlette(routes=[Route("/fn", made.call, methods=["POST"])])
        await stack.enter_async_context(served(asgi, listener))
        yield made
    listener.close()
