"""An app inside projects of other frameworks, and theirs inside ours: with the real ones."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import a2wsgi
import django
import fastapi
import flask
import httpx
import inngest
import pytest
import uvicorn
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.urls import path
from starlette.applications import Starlette
from starlette.routing import Mount, Route
from uvicorn.lifespan.on import LifespanOn

from flowctl import App, ServerConfig, serve
from flowctl.server.auth import ApiKeys
from tests.conftest import served
from tests.server.conftest import make_app

settings.configure(ROOT_URLCONF=__name__, SECRET_KEY="for tests", ALLOWED_HOSTS=["*"])
django.setup()
urlpatterns = [path("own", lambda _: HttpResponse("django"))]


@contextlib.asynccontextmanager
async def up(asgi: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Served with its lifespan, as `uvicorn module:app` does."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    lifespan = LifespanOn(uvicorn.Config(asgi, log_config=None))
    await lifespan.startup()
    async with served(asgi, listener), httpx.AsyncClient(base_url=url, timeout=30) as http:
        try:
            yield http
        finally:
            await lifespan.shutdown()


async def counted(http: httpx.AsyncClient, prefix: str) -> Any:
    answer = await http.post(f"{prefix}/api/workflows/counter/start-async", json={"inputData": {"value": 8}})
    return answer.json()["result"]


async def test_in_fastapi_with_its_lifespan() -> None:
    app = make_app()
    web = fastapi.FastAPI(lifespan=app.lifespan)

    @web.get("/own")
    def own() -> str:
        return "fastapi"

    web.mount("/flow", app.asgi)
    async with up(web) as http:
        assert (await http.get("/own")).json() == "fastapi"
        assert await counted(http, "/flow") == {"value": 10}
        document = (await http.get("/flow/api/openapi.json")).json()
        assert document["servers"] == [{"url": "/flow"}]
        assert (await http.get("/flow/docs")).status_code == 200


async def test_in_starlette_without_a_lifespan_the_first_request_starts_the_app() -> None:
    app = make_app(server=ServerConfig())
    async with up(Starlette(routes=[Mount("/flow", app.asgi)])) as http:
        assert await counted(http, "/flow") == {"value": 10}
    await app.stop()


async def test_beside_django_under_one_server() -> None:
    app = make_app()
    routes = [Mount("/flow", app.asgi), Mount("/", get_asgi_application())]
    async with up(Starlette(routes=routes, lifespan=app.lifespan)) as http:
        assert await counted(http, "/flow") == {"value": 10}
        assert (await http.get("/own")).text == "django"


async def test_a_flask_app_inside_ours() -> None:
    web = flask.Flask(__name__)
    web.add_url_rule("/own", view_func=lambda: "flask")
    bridge: Any = a2wsgi.WSGIMiddleware(web)
    app = make_app(server=ServerConfig(routes=[Mount("/legacy", bridge)]))
    async with up(app.asgi) as http:
        assert (await http.get("/legacy/own")).text == "flask"
        assert await counted(http, "") == {"value": 10}


@pytest.mark.parametrize("methods", [["GET", "POST", "PUT"]])
async def test_serve_alone_is_the_inngest_endpoint(methods) -> None:
    client = inngest.Inngest(app_id="alone", is_production=False)

    @client.create_function(fn_id="mine", trigger=inngest.TriggerEvent(event="x"))
    async def mine(ctx: inngest.Context) -> None:
        del ctx

    app = App(inngest=client)
    async with up(Starlette(routes=[Route("/api/inngest", serve(app, [mine]), methods=methods)])) as http:
        shown = await http.get("/api/inngest")
        assert (shown.status_code, shown.json()["function_count"]) == (200, 1)
    await client._http_client._http_client.aclose()


async def test_below_other_mounts_pages_links_and_ids_lead_to_the_right_place() -> None:
    app = make_app(server=ServerConfig(auth=ApiKeys(["k1"])))
    web = Starlette(
        routes=[Mount("/outer", routes=[Mount("/flow", app.asgi)])], lifespan=app.lifespan
    )  # fmt: skip
    async with up(web) as http:
        assert (await http.get("/outer/flow/health")).status_code == 200
        assert (await http.get("/outer/flow/api/workflows")).status_code == 401
        http.headers["x-api-key"] = "k1"
        assert 'href="docs"' in (await http.get("/outer/flow/")).text
        docs = (await http.get("/outer/flow/docs")).text
        assert 'data-path="api/workflows"' in docs
        assert "<code>/outer/flow/api/workflows</code>" in docs
        await http.post("/outer/flow/api/workflows/counter/create-run?runId=a/b")
        run = await http.get("/outer/flow/api/workflows/counter/runs/a%2Fb")
        assert run.json()["runId"] == "a/b"


@pytest.mark.parametrize("root", ["", "/proxied"])
async def test_behind_a_proxy_that_cuts_a_prefix_off_the_document_names_it(root: str) -> None:
    app = make_app()
    transport = httpx.ASGITransport(app.asgi, root_path=root)
    async with httpx.AsyncClient(transport=transport, base_url=f"http://app{root}") as http:
        document = (await http.get("/api/openapi.json")).json()
        assert document["servers"] == [{"url": root or "/"}]
        assert f"<code>{root}/api/workflows</code>" in (await http.get("/docs")).text
        assert (await http.get("/api/workflows/")).status_code == 200
    await app.stop()


async def test_the_life_of_a_mounted_app_is_that_of_the_application_around_it() -> None:
    app = make_app()
    async with up(fastapi.FastAPI(lifespan=app.lifespan)):
        assert len(app._chores) >= 1
    assert app._chores == []
