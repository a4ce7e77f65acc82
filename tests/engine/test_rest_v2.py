"""Invocations by the REST API's second version: the run, or why there is none."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx
import inngest
import pytest
from engine_world import World, until

from flowctl.engine import Engine, EngineConfig


async def invoked(world: World, id: str, body: Any, *, prefix: str = "/api/v2") -> httpx.Response:
    path = f"{prefix}/apps/t/functions/{id}/invoke"
    return await world.http.post(f"{world.engine.url}{path}", json=body)


@pytest.fixture
async def echo(world: World) -> World:
    @world.function("echo")
    async def echo(ctx: inngest.Context) -> Any:
        return ctx.event.data["n"]

    await world.start()
    return world


@pytest.mark.parametrize(("prefix", "id"), [("/v2", "echo"), ("/api/v2", "t-echo")])
async def test_an_invocation_gives_the_run_that_it_began(echo, prefix, id):
    answer = await invoked(echo, id, {"data": {"n": 7}}, prefix=prefix)
    assert (answer.status_code, list(answer.json())) == (201, ["data", "metadata"])
    path = f"/v1/runs/{answer.json()['data']['runId']}"

    async def ended() -> Any:
        run = await echo.get(path)
        return run if run["ended_at"] else None

    assert (await until(ended))["output"] == 7


async def test_a_key_makes_one_run_however_often_it_is_sent(echo):
    answers = [await invoked(echo, "echo", {"data": {"n": n}, "idempotencyKey": "order 7"}) for n in (1, 2)]
    other = await invoked(echo, "echo", {"data": {"n": 3}, "idempotencyKey": "order 8"})
    assert [answer.status_code for answer in (*answers, other)] == [201, 409, 201]
    first, second, third = (answer.json()["data"]["runId"] for answer in (*answers, other))
    assert (first == second, first == third) == (True, False)


@pytest.mark.parametrize(
    ("id", "body", "status", "code"),
    [
        ("nobody", {"data": {}}, 404, "not_found"),
        ("echo", {}, 400, "missing_field"),
        ("echo", [], 400, "missing_field"),
        ("echo", {"data": "text"}, 400, "missing_field"),
    ],
)
async def test_an_invocation_that_cannot_be_is_refused_by_a_code(echo, id, body, status, code):
    answer = await invoked(echo, id, body)
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (status, code)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"rate_limit": inngest.RateLimit(limit=1, period=timedelta(hours=1))}, "rate_limited"),
        ({"singleton": inngest.Singleton(mode="skip")}, "function_skipped"),
        ({"debounce": inngest.Debounce(period=timedelta(hours=1))}, "function_debounced"),
    ],
)
async def test_an_invocation_that_flow_control_holds_back_says_so(world, options, code):
    @world.function("held", **options)
    async def held(ctx: inngest.Context) -> None:
        await ctx.step.sleep("nap", timedelta(hours=1))

    await world.start()
    await invoked(world, "held", {"data": {}})
    answer = await invoked(world, "held", {"data": {}})
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, code)


@pytest.mark.parametrize(
    ("authorization", "status"), [("Bearer signkey-prod-00ff", 404), ("Bearer 00fe", 401), ("", 401)]
)
async def test_with_keys_only_their_bearers_invoke(authorization, status):
    headers = {"authorization": authorization}
    path = "/api/v2/apps/a/functions/f/invoke"
    async with (
        Engine(EngineConfig(port=0, signing_keys=("signkey-prod-00ff",))) as engine,
        httpx.AsyncClient() as http,
    ):
        answer = await http.post(f"{engine.url}{path}", json={"data": {}}, headers=headers)
    assert answer.status_code == status
