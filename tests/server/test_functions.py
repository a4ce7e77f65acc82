"""Inngest functions and events over the REST API, with a live engine behind the app."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import Any

import httpx
import inngest
import pytest

from flowctl import create_workflow
from flowctl.engine import Engine, EngineConfig
from flowctl.testing import TestApp
from tests.server.conftest import Counter, increment, make_app

KEY, OLD_KEY = "signkey-prod-00ff", "signkey-prod-00aa"


@asynccontextmanager
async def on_inngest():
    """A client of an app on an engine, with a function of the user's, and what this one has seen."""
    origin, seen = inngest.Inngest(app_id="mine", is_production=False), asyncio.Queue()

    @origin.create_function(fn_id="greet", trigger=inngest.TriggerEvent(event="user/came"))
    async def greet(ctx: inngest.Context) -> None:
        await seen.put((ctx.event.name, dict(ctx.event.data)))

    counter = create_workflow(id="counter", input_schema=Counter, output_schema=Counter)
    counter.dountil(_step(), lambda ctx: ctx.input_data.value >= 10).commit()
    app = TestApp(workflows=[counter], functions=[greet], engine="inngest")
    async with app, httpx.AsyncClient(
        transport=httpx.ASGITransport(app.asgi), base_url="http://app/api", timeout=30
    ) as http:  # fmt: skip
        yield http, seen
    await origin._http_client._http_client.aclose()


def _step() -> Any:
    from flowctl import create_step

    return create_step(id="increment", input_schema=Counter, output_schema=Counter, execute=increment)


async def ended(http: httpx.AsyncClient) -> dict[str, Any]:
    """The one run of the workflow, once it has ended."""
    async with asyncio.timeout(30):
        while True:
            runs = (await http.get("/workflows/counter/runs")).json()["runs"]
            if runs and runs[0]["snapshot"]["status"] == "success":
                return runs[0]
            await asyncio.sleep(0.02)


async def test_functions_are_listed_with_their_triggers() -> None:
    async with on_inngest() as (http, _):
        listed = {f["id"]: f["triggers"] for f in (await http.get("/functions")).json()}
    assert set(listed) == {"workflow.counter", "workflow.counter.continue", "greet"}
    assert listed["greet"][0]["event"] == "user/came"


async def test_a_workflow_and_a_custom_function_are_invoked_with_a_payload() -> None:
    async with on_inngest() as (http, seen):
        body = {"data": {"inputData": {"value": 7}}}
        invoked = await http.post("/functions/workflow.counter/invoke", json=body)
        assert (invoked.status_code, bool(invoked.json()["id"])) == (200, True)
        assert (await ended(http))["snapshot"]["result"] == {"value": 10}
        greeted = await http.post("/functions/greet/invoke", json={"data": {"name": "Ada"}})
        assert greeted.status_code == 200
        async with asyncio.timeout(30):
            _, data = await seen.get()
        assert data["name"] == "Ada"


async def test_an_event_begins_the_functions_that_wait_for_it() -> None:
    async with on_inngest() as (http, seen):
        sent = await http.post("/events", json={"name": "user/came", "data": {"name": "Bob"}})
        assert len(sent.json()["ids"]) == 1
        async with asyncio.timeout(30):
            assert await seen.get() == ("user/came", {"name": "Bob"})


async def test_a_function_that_there_is_not_is_a_404_that_lists_those_there_are() -> None:
    async with on_inngest() as (http, _):
        answer = await http.post("/functions/nope/invoke", json={})
    assert (answer.status_code, answer.json()["code"]) == (404, "FUNCTION_NOT_FOUND")
    assert "greet, workflow.counter" in answer.json()["error"]


@pytest.mark.parametrize("engines_key", [KEY, OLD_KEY])
async def test_a_function_is_invoked_on_an_engine_with_keys(serve_app, monkeypatch, engines_key) -> None:
    monkeypatch.setenv("INNGEST_SIGNING_KEY_FALLBACK", OLD_KEY)
    seen = asyncio.Queue[Any]()
    async with Engine(EngineConfig(port=0, event_keys=("evt",), signing_keys=(engines_key,))) as engine:
        client = inngest.Inngest(
            app_id="mine",
            is_production=True,
            signing_key=KEY,
            event_key="evt",
            api_base_url=engine.url,
            event_api_base_url=engine.url,
        )

        @client.create_function(fn_id="greet", trigger=inngest.TriggerEvent(event="user/came"))
        async def greet(ctx: inngest.Context) -> None:
            await seen.put((ctx.run_id, ctx.event.data["name"]))

        url = await serve_app(make_app(inngest=client, functions=[greet]))
        async with httpx.AsyncClient(base_url=url, timeout=30) as http:
            assert (await http.put("/api/inngest")).status_code == 200
            answer = await http.post("/api/functions/greet/invoke", json={"data": {"name": "Ada"}})
        assert answer.status_code == 200, answer.text
        assert await asyncio.wait_for(seen.get(), 30) == (answer.json()["id"], "Ada")
        await client._http_client._http_client.aclose()


@pytest.mark.parametrize("path", ["/events", "/functions/x/invoke"])
async def test_without_a_client_there_is_no_engine_to_ask(serve_app, path: str) -> None:
    url = await serve_app(make_app())
    async with httpx.AsyncClient(base_url=url) as http:
        answer = await http.post(f"/api{path}", json={"name": "x"})
    assert (answer.status_code, answer.json()["code"]) == (404, "NO_INNGEST_CLIENT")


async def test_an_engine_that_is_away_is_a_503_that_names_it(serve_app) -> None:
    away = "http://127.0.0.1:1"
    client = inngest.Inngest(
        app_id="mine", is_production=False, api_base_url=away, event_api_base_url=away, event_key="k"
    )
    url = await serve_app(make_app(inngest=client))
    async with httpx.AsyncClient(base_url=f"{url}/api", timeout=60) as http:
        answer = await http.post("/functions/workflow.counter/invoke", json={})
        assert (answer.status_code, away in answer.json()["error"]) == (503, True)
        ready = await http.get(f"{url}/health/ready")
        assert (ready.status_code, ready.json()["checks"]["engine"]["ok"]) == (503, False)
    await client._http_client._http_client.aclose()
