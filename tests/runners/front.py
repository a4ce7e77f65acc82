"""An engine, a front that all calls to it go through, and an app whose requests are counted."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
import inngest
import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flowctl import App, MemoryStorage, serve
from flowctl.engine import Engine, EngineConfig
from tests.conftest import served

PATH = "/api/inngest"
Refusal = Callable[[str], int | None]
Answer = Callable[[], Awaitable[None]]


async def _at_once(_: str, answer: Answer) -> None:
    await answer()


@dataclass
class Front:
    """Passes calls on to the engine, unless `refuse` answers a path with a status."""

    engine_url: str
    http: httpx.AsyncClient
    refuse: Refusal = lambda _: None
    waits: Callable[[str], Awaitable[Any] | None] = lambda _: None
    """What a call to this path waits for, if for anything."""
    posts: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    registered: list[dict[str, Any]] = field(default_factory=list)
    messages: list[list[dict[str, Any]]] = field(default_factory=list)
    """Realtime messages by request."""
    takes_lines: bool = True

    async def pass_on(self, request: Request) -> Response:
        body = await request.body()
        path = request.url.path
        if path.startswith("/v1/checkpoint/"):
            self.posts.append(orjson.loads(body))
        if path.startswith("/e/"):
            self.events += orjson.loads(body)
        if path == "/v1/realtime/publish":
            self.messages.append([orjson.loads(line) for line in body.splitlines()])
        if path == "/fn/register":
            self.registered += orjson.loads(body)["functions"]
        if (held := self.waits(path)) is not None:
            await held
        if (status := self.refuse(path)) is not None:
            return Response(b"refused", status)
        url = f"{self.engine_url}{path}?{request.url.query}"
        kept = {k: v for k, v in request.headers.items() if k not in {"host", "content-length"}}
        answer = await self.http.request(request.method, url, content=body, headers=kept)
        kinds = {"content-type", "accept-post"} if self.takes_lines else {"content-type"}
        shown = {k: v for k, v in answer.headers.items() if k in kinds}
        return Response(answer.content, answer.status_code, shown)

    @property
    def posted(self) -> list[str]:
        """The steps that were reported while a request went on, in order."""
        return [step["name"] for post in self.posts for step in post["steps"]]


@dataclass
class Served:
    """An app on an engine of its own."""

    app: App
    front: Front
    engine: Engine
    url: str = ""
    requests: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    around: Callable[[str, Answer], Awaitable[None]] = _at_once

    async def start(self, workflow_id: str, input_data: Any = None, **options: Any) -> Any:
        """Run a workflow to its first stop."""
        run = await self.app.get_workflow(workflow_id).create_run()
        return await run.start(input_data=input_data, **options)


@contextlib.asynccontextmanager
async def on_engine(*, retry_seconds: float | None = None, **options: Any) -> AsyncGenerator[Served]:
    """Serve an app (options as for App) whose client talks to its engine through a front."""
    async with contextlib.AsyncExitStack() as stack:
        engine = await stack.enter_async_context(Engine(EngineConfig(port=0, retry_seconds=retry_seconds)))
        front = Front(engine.url, await stack.enter_async_context(httpx.AsyncClient(timeout=30)))
        methods = ["GET", "POST", "PUT", "DELETE"]
        asgi = Starlette(routes=[Route("/{path:path}", front.pass_on, methods=methods)])
        front_url = await stack.enter_async_context(listening(asgi))
        client = inngest.Inngest(
            app_id="test", is_production=False, api_base_url=front_url, event_api_base_url=front_url
        )
        stack.push_async_callback(client._http_client._http_client.aclose)
        app = App(**{"inngest": client, "storage": MemoryStorage()} | options)
        made = Served(app, front, engine)
        web = Starlette(routes=[Route(PATH, _Counted(serve(app), made), methods=methods)])
        made.url = await stack.enter_async_context(listening(web)) + PATH
        stack.push_async_callback(app.stop)
        answer = await front.http.put(made.url)
        assert answer.status_code == 200, answer.text
        yield made


@contextlib.asynccontextmanager
async def listening(asgi: Any) -> AsyncGenerator[str]:
    """Serve on a free port; its URL."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        async with served(asgi, listener):
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"


class _Counted:
    """An endpoint that notes the engine's calls; `around` may hold them."""

    def __init__(self, endpoint: Any, served: Served) -> None:
        self.endpoint, self.served = endpoint, served

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        query = scope["query_string"].decode()
        if scope["method"] == "POST":
            self.served.requests.append(query)
            receive = _again(body := await Request(scope, receive).body())
            self.served.bodies.append(orjson.loads(body))
        await self.served.around(query, partial(self.endpoint, scope, receive, send))


def _again(body: bytes) -> Callable[[], Awaitable[dict[str, Any]]]:
    """What receives a body that was read already."""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive
