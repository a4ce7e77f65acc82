"""Runs that an app's own endpoint begins and reports, as the SDKs for durable endpoints do it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from engine_world import served
from plain_app import SDK
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from flowctl.engine import Engine, EngineConfig
from flowctl.engine.protocol import new_ulid
from flowctl.engine.timing import now_ms


class Shop:
    """An endpoint `/orders/7` whose caller was answered; the engine calls it from the second leg on."""

    def __init__(self, engine: Engine, http: httpx.AsyncClient, listener: socket.socket) -> None:
        self.engine, self.http, self.asked = engine, http, list[tuple[Request, bytes]]()
        self.domain = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.run_id, self.answer = new_ulid(now_ms()), Response()

    async def endpoint(self, request: Request) -> Response:
        self.asked.append((request, await request.body()))
        self.answer.headers.update(SDK)
        return self.answer

    async def begin(self, *steps: dict[str, Any], **asked: str) -> httpx.Response:
        request = {
            "domain": self.domain, "method": "PUT", "path": "/orders/7", "query_params": "a=b",
            "content_type": "text/plain", "body": "what was sent!", "ip": "", "fn": "",
            **asked,
        }  # fmt: skip
        event = {"name": "inngest/http.request", "data": request}
        body = {"run_id": self.run_id, "event": event, "steps": steps, "retries": 1}
        return await self.http.post(f"{self.engine.url}/v1/checkpoint", json=body)

    async def report(self, *steps: dict[str, Any]) -> httpx.Response:
        url = f"{self.engine.url}/v1/checkpoint/{self.run_id}/steps"
        return await self.http.post(url, json={"run_id": self.run_id, "steps": steps})

    async def run(self) -> Any:
        return (await self.http.get(f"{self.engine.url}/v1/runs/{self.run_id}")).json()["data"]

    async def output(self, token: str, prefix: str = "/v1/checkpoint") -> httpx.Response:
        url = f"{self.engine.url}{prefix}/{self.run_id}/output"
        return await self.http.get(url, params={"token": token})


RAN = {"op": "StepRun", "id": "a", "data": 1}
RESULT = {"status": 201, "headers": {"x-kind": "order", "content-length": "99"}, "body": "made"}


@pytest.fixture
async def shop(request) -> AsyncIterator[Shop]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    async with contextlib.AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=20))
        engine = await stack.enter_async_context(
            Engine(EngineConfig(port=0, **getattr(request, "param", {})))
        )
        made = Shop(engine, http, listener)
        asgi = Starlette(routes=[Route("/orders/7", made.endpoint, methods=["PUT"])])
        await stack.enter_async_context(served(asgi, listener))
        yield made
    listener.close()


async def test_an_endpoint_reports_its_run_from_begin_to_end(shop):
    begun = (await shop.begin(RAN)).json()["data"]
    assert begun["run_id"] == shop.run_id
    assert {"fn_id", "app_id", "token", "realtime_token"} <= begun.keys()
    assert (await shop.report({"op": "RunComplete", "id": "c", "data": RESULT})).status_code == 200
    run = await shop.run()
    assert (run["status"], run["output"], run["function_id"]) == ("Completed", RESULT, begun["fn_id"])
    assert shop.asked == []


async def test_what_an_endpoint_notes_of_its_steps_is_counted_once(shop):
    note = {"scope": "run", "kind": "userland.cost", "op": "add", "values": {"cents": 1}}
    await shop.begin(RAN | {"metadata": [note]})
    wait = {"op": "Sleep", "id": "s", "name": "1h", "metadata": [note]}
    assert (await shop.report(wait)).status_code == 200
    query = "query($id: String!) { run(runID: $id) { trace { metadata { values } } } }"
    asked = {"query": query, "variables": {"id": shop.run_id}}
    answer = (await shop.http.post(f"{shop.engine.url}/v0/gql", json=asked)).json()
    assert answer["data"]["run"]["trace"]["metadata"] == [{"values": {"cents": 2}}]


async def test_a_run_that_waits_goes_on_by_a_repetition_of_its_request(shop):
    token = (await shop.begin(RAN)).json()["data"]["token"]
    shop.answer = JSONResponse({"op": "RunComplete", "id": "c", "data": {"data": RESULT}}, 206)
    await shop.report({"op": "Sleep", "id": "s", "name": "1ms"})
    answer = await shop.output(token)
    assert (answer.status_code, answer.text, answer.headers["x-kind"]) == (201, "made", "order")
    [(request, body)] = shop.asked
    assert (request.method, request.url.query, body) == ("PUT", "a=b", b"what was sent!")
    assert request.headers["x-run-id"] == shop.run_id
    assert request.headers["x-inngest-signature"] == ""
    stored = await shop.http.get(f"{shop.engine.url}/v0/runs/{shop.run_id}/actions")
    assert stored.json() == {"a": {"data": 1}, "s": None}


@pytest.mark.parametrize(
    "asked", [{"content_type": "a/b\r\nx-other: 1"}, {"method": "PUT /x HTTP/1.1\r\na: b"}]
)
async def test_a_request_that_would_be_two_is_not_repeated_and_fails_its_run(shop, asked):
    token = (await shop.begin(RAN, **asked)).json()["data"]["token"]
    await shop.report({"op": "Sleep", "id": "s", "name": "1ms"})
    await shop.output(token)
    run = await shop.run()
    assert (run["status"], shop.asked) == ("Failed", [])
    assert "HTTP method" in run["output"]["message"] or "line break" in run["output"]["message"]


async def test_a_step_that_failed_is_retried_by_the_engine(shop):
    token = (await shop.begin(RAN)).json()["data"]["token"]
    shop.answer = JSONResponse([{"op": "RunComplete", "id": "c", "data": RESULT}], 206)
    error = {"name": "E", "message": "later", "retryAfter": "0"}
    await shop.report({"op": "StepError", "id": "b", "error": error})
    assert (await shop.output(token, "/v1/http/runs")).text == "made"


@pytest.mark.parametrize("shop", [{"retry_seconds": 3600}], indirect=True)
async def test_a_step_that_failed_is_retried_when_the_engine_is_told_to(shop):
    await shop.begin(RAN)
    before = now_ms()
    await shop.report({"op": "StepError", "id": "b", "error": {"name": "E", "message": "later"}})
    [(due,)] = shop.engine._store.db.execute("SELECT due FROM jobs WHERE kind = 'call'").fetchall()
    assert before + 3_600_000 <= due <= now_ms() + 3_600_000


async def test_a_failing_answer_is_a_failed_run(shop):
    await shop.begin(RAN)
    await shop.report({"op": "RunComplete", "id": "c", "data": {"status": 500, "body": "no"}})
    assert (await shop.run())["status"] == "Failed"


async def test_reports_that_are_repeated_change_nothing(shop):
    await shop.begin(RAN)
    assert (await shop.begin(RAN)).status_code == 409
    done = {"op": "RunComplete", "id": "c", "data": RESULT}
    assert [(await shop.report(done)).status_code for _ in range(2)] == [200, 200]
    assert (await shop.run())["output"] == RESULT


async def test_what_is_unknown_or_malformed_is_refused_with_the_reason(shop):
    assert (await shop.report(RAN)).status_code == 404
    assert (await shop.output("no.token.this")).status_code == 401
    url = f"{shop.engine.url}/v1/checkpoint"
    answer = await shop.http.post(url, json={"run_id": "7"})
    assert (answer.status_code, answer.json()["error"]) == (400, "Invalid request body: '7' is no run id")
    assert (await shop.http.post(url, content=b"{")).status_code == 400


async def test_an_endpoint_that_could_not_be_kept_is_known_once_it_can_be(shop):
    db = shop.engine._store.db
    db.execute("CREATE TEMP TRIGGER full BEFORE INSERT ON main.apps BEGIN SELECT RAISE(ABORT, 'full'); END")
    assert (await shop.begin(RAN)).status_code == 503
    db.execute("DROP TRIGGER full")
    assert db.execute("SELECT name FROM apps").fetchall() == []
    assert (await shop.begin(RAN)).status_code == 200
    assert db.execute("SELECT name FROM apps").fetchall() == [(shop.domain,)]
