"""What requests pass before the API: who asks, from which page, how much, and what is logged of it."""

from __future__ import annotations

import io
import json
import logging
import time
from contextlib import asynccontextmanager
from typing import Any

import httpx
import jwt
import pytest
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from flowctl import ServerConfig
from flowctl.client import ApiError, Client
from flowctl.errors import ConfigurationError
from flowctl.server import logs
from flowctl.server.auth import ApiKeys, ForbiddenError, JwtAuth
from tests.server.conftest import make_app

SECRET = "a-secret-that-is-long-enough-for-hs256"


@pytest.fixture
def asking(serve_app):
    """A client of an app with this server configuration."""

    @asynccontextmanager
    async def ask(**options: Any):
        url = await serve_app(make_app(server=ServerConfig(**options)))
        async with httpx.AsyncClient(base_url=url, timeout=30) as http:
            yield http

    return ask


async def who(request: Request) -> JSONResponse:
    return JSONResponse({"user": request.user})


WHO = Route("/who", who)


async def test_a_key_opens_api_and_pages_and_its_name_is_the_user(asking) -> None:
    async with asking(auth=ApiKeys({"ci": "k1"}), routes=[WHO]) as http:
        for path in ("/api/workflows", "/", "/docs", "/who"):
            refused = await http.get(path)
            assert (refused.status_code, refused.json()["code"]) == (401, "UNAUTHENTICATED")
            assert refused.headers["www-authenticate"].startswith("Basic")
        for headers in ({"authorization": "Bearer k1"}, {"x-api-key": "k1"}):
            assert (await http.get("/who", headers=headers)).json() == {"user": "ci"}
        assert (await http.get("/who", auth=("anyone", "k1"))).json() == {"user": "ci"}
        assert (await http.get("/who", headers={"x-api-key": "k2"})).status_code == 401


async def test_health_and_the_inngest_endpoint_need_no_key(asking) -> None:
    async with asking(auth=ApiKeys(["k1"])) as http:
        assert (await http.get("/health")).status_code == 200
        assert (await http.put("/api/inngest")).json()["code"] == "NO_INNGEST_CLIENT"


async def test_the_python_client_sends_its_key(asking) -> None:
    async with asking(auth=ApiKeys(["k1"])) as http:
        url = str(http.base_url)
        async with Client(url, api_key="k1") as client, Client(url) as stranger:
            assert "counter" in await client.list_workflows()
            with pytest.raises(ApiError) as refused:
                await stranger.list_workflows()
            assert refused.value.status == 401


async def test_a_page_cannot_write_with_a_password_that_the_browser_keeps(asking) -> None:
    async with asking(auth=ApiKeys(["k1"])) as http:
        path, foreign = "/api/workflows/counter/create-run", {"origin": "https://evil.example"}
        assert (await http.post(path, auth=("", "k1"), headers=foreign)).status_code == 403
        own = {"origin": str(http.base_url).rstrip("/")}
        assert (await http.post(path, auth=("", "k1"), headers=own)).status_code == 200


async def test_tokens_are_verified(asking) -> None:
    def token(secret: str = SECRET, **claims: Any) -> dict[str, str]:
        known = {"sub": "ada", "aud": "flows", "exp": time.time() + 600}
        return {"authorization": f"Bearer {jwt.encode(known | claims, secret, algorithm='HS256')}"}

    auth = JwtAuth(key=SECRET, algorithms=["HS256"], audience="flows")
    async with asking(auth=auth, routes=[WHO]) as http:
        assert (await http.get("/who", headers=token())).json()["user"]["sub"] == "ada"
        for wrong in (token(secret="x" * 32), token(aud="others"), token(exp=time.time() - 600)):
            answer = await http.get("/who", headers=wrong)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


async def test_a_function_of_the_users_decides_and_several_ways_go_together(asking) -> None:
    async def by_cookie(request: Any) -> str | None:
        if request.cookies.get("session") == "banned":
            raise ForbiddenError("You are not welcome.")
        return request.cookies.get("session")

    async with asking(auth=[ApiKeys(["k1"]), by_cookie], routes=[WHO]) as http:
        assert (await http.get("/who", headers={"cookie": "session=ada"})).json() == {"user": "ada"}
        assert (await http.get("/who", headers={"x-api-key": "k1"})).json() == {"user": "key-1"}
        assert (await http.get("/who", headers={"cookie": "session=banned"})).status_code == 403


@pytest.mark.parametrize("wrong", [lambda: ApiKeys([]), lambda: ApiKeys([""]), JwtAuth])
def test_auth_that_would_let_everyone_in_is_refused(wrong) -> None:
    with pytest.raises(ConfigurationError):
        wrong()


async def test_pages_of_listed_origins_may_use_the_api(asking) -> None:
    page = "https://app.example"
    async with asking(cors=[page], auth=ApiKeys(["k1"])) as http:
        asked = {"origin": page, "access-control-request-method": "POST"}
        preflight = await http.options("/api/workflows", headers=asked)
        assert preflight.headers["access-control-allow-origin"] == page
        refused = await http.get("/api/workflows", headers={"origin": page})
        assert refused.headers["access-control-allow-origin"] == page
        foreign = await http.get("/api/workflows", headers={"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in foreign.headers


async def test_in_development_only_pages_of_this_machine_may_write(asking, monkeypatch) -> None:
    monkeypatch.setenv("FLOWCTL_ENV", "development")
    async with asking(cors=["https://app.example"]) as http:
        path = "/api/workflows/counter/create-run"
        assert (await http.get("/api/workflows", headers={"host": "evil.example"})).status_code == 403
        assert (await http.post(path, headers={"origin": "https://evil.example"})).status_code == 403
        assert (await http.post(path, headers={"origin": "http://localhost:3000"})).status_code == 200
        assert (await http.post(path, headers={"origin": "https://app.example"})).status_code == 200


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_body_that_is_too_large_is_refused(asking, chunked: bool) -> None:
    async def parts():
        for _ in range(4):
            yield b" " * 50

    async with asking(body_limit=100) as http:
        content: Any = parts() if chunked else b" " * 200
        headers = {"content-type": "application/json"}
        answer = await http.post("/api/workflows/counter/start-async", content=content, headers=headers)
        assert (answer.status_code, "100 bytes" in answer.json()["error"]) == (413, True)


async def test_a_run_that_takes_longer_than_the_server_waits_goes_on(asking) -> None:
    async with asking(timeout=0.05) as http:
        path = "/api/workflows/slow"
        answer = await http.post(f"{path}/start-async?runId=s", json={"inputData": {"value": 1}})
        assert (answer.status_code, answer.json()["runId"]) == (504, "s")
        assert (await http.get(f"{path}/runs/s")).json()["status"] == "running"
        await http.post(f"{path}/runs/s/cancel")


async def test_a_mistake_on_the_server_is_a_500_with_the_requests_id(asking) -> None:
    async def broken(_: Request) -> JSONResponse:
        raise RuntimeError("secret detail")

    async with asking(routes=[Route("/broken", broken)]) as http:
        answer = await http.get("/broken", headers={"x-request-id": "r-1"})
        assert (answer.status_code, answer.headers["x-request-id"]) == (500, "r-1")
        assert answer.json() == {"error": "Internal server error", "code": "INTERNAL", "requestId": "r-1"}


async def test_a_request_without_an_id_gets_one(asking) -> None:
    async with asking() as http:
        ids = {
            (await http.get("/health", headers={"x-request-id": "a b"})).headers["x-request-id"] for _ in "ab"
        }
        assert len(ids) == 2
        assert all(len(id) == 32 for id in ids)


class Stamp:
    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        scope["user"] = "stamped"
        await self.app(scope, receive, send)


async def test_routes_and_middleware_of_the_users_are_served(asking) -> None:
    async with asking(routes=[WHO], middleware=[Middleware(Stamp)], studio=False, openapi=False) as http:
        assert (await http.get("/who")).json() == {"user": "stamped"}
        assert [(await http.get(p)).status_code for p in ("/", "/docs", "/api/openapi.json")] == [404] * 3


async def test_pages_load_nothing_from_elsewhere(asking) -> None:
    async with asking() as http:
        for path in ("/", "/docs"):
            page = await http.get(path)
            assert page.status_code == 200
            assert "default-src 'none'" in page.headers["content-security-policy"]
            assert "//" not in page.text.replace("http://www.w3.org", "").partition("<script>")[0]


@pytest.mark.parametrize("kind", ["json", "text"])
def test_log_lines_have_the_requests_id_and_fields(kind) -> None:
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(logs.JsonLines() if kind == "json" else logs.TextLines())
    log = logging.getLogger(f"mine.{kind}")
    log.propagate = False
    log.addHandler(handler)
    token = logs.request_id.set("r-1")
    log.warning("%d left", 3, extra={"queue": "mail"})
    logs.request_id.reset(token)
    line = written.getvalue()
    if kind == "json":
        shown = json.loads(line)
        assert (shown["message"], shown["requestId"], shown["queue"]) == ("3 left", "r-1", "mail")
    else:
        assert "mine.text  3 left  requestId=r-1 queue=mail" in line
