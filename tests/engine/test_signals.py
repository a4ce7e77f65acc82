"""Opcodes and endpoints that inngest-py has no words for: an app that speaks the protocol itself."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from engine_world import served, until
from plain_app import SDK
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


@pytest.fixture
async def waiting(world: Any) -> Any:
    """A function that waits for the signal its event names, and returns what the step came to."""

    async def call(request: Request) -> JSONResponse:
        sent = await request.json()
        if sent["steps"]:
            return JSONResponse(sent["steps"]["w"], headers=SDK)
        op = {
            "op": "WaitForSignal",
            "id": "w",
            "name": "w",
            "opts": {"timeout": "1h"} | sent["event"]["data"],
        }
        return JSONResponse([op], 206, headers=SDK)

    url = f"http://127.0.0.1:{world.listener.getsockname()[1]}/x?fnId=t-w&stepId=step"
    function = {
        "id": "t-w",
        "triggers": [{"event": "t/w"}],
        "steps": {"step": {"runtime": {"url": url}}},
    }
    async with served(Starlette(routes=[Route("/x", call, methods=["POST"])]), world.listener):
        body = {"appName": "t", "url": url, "functions": [function]}
        assert (await world.http.post(f"{world.engine.url}/fn/register", json=body)).status_code == 200
        yield world


async def signal(world: Any, name: str, data: Any) -> int:
    answer = await world.http.post(f"{world.engine.url}/v1/signals", json={"signal": name, "data": data})
    return answer.status_code


async def waits(world: Any, event_id: str) -> Any:
    async def check() -> Any:
        runs = await world.runs(event_id)
        jobs = await world.get(f"/v1/runs/{runs[0]['run_id']}/jobs") if runs else []
        return any(job["kind"] == "timeout" for job in jobs)

    await until(check, "the wait")


async def test_a_signal_ends_the_step_that_waits_for_it(waiting):
    id = await waiting.send("t/w", {"signal": "go"})
    await waits(waiting, id)
    assert await signal(waiting, "stop", 1) == 404
    assert await signal(waiting, "go", {"n": 1}) == 200
    assert (await waiting.ended(id))["output"] == {"data": {"signal": "go", "data": {"n": 1}}}


async def test_a_signal_that_does_not_come_leaves_nothing(waiting):
    id = await waiting.send("t/w", {"signal": "go", "timeout": "20ms"})
    assert (await waiting.ended(id))["output"] is None


async def test_a_second_run_that_waits_for_a_signal_fails_unless_it_replaces_the_first(waiting):
    first = await waiting.send("t/w", {"signal": "go"})
    await waits(waiting, first)
    failed = await waiting.ended(await waiting.send("t/w", {"signal": "go"}))
    assert (failed["status"], failed["output"]["message"]) == (
        "Failed",
        "Signal conflict; signal wait already exists for another run",
    )
    second = await waiting.send("t/w", {"signal": "go", "conflict": "replace"})
    await waits(waiting, second)
    assert await signal(waiting, "go", 1) == 200
    assert (await waiting.ended(second))["status"] == "Completed"
    assert (await waiting.runs(first))[0]["ended_at"] is None


async def test_a_cancellation_ends_the_runs_of_a_function_that_fit(waiting):
    ids = [await waiting.send("t/w", {"signal": name}) for name in ("a", "b")]
    for id in ids:
        await waits(waiting, id)
    wanted = {
        "app_id": "t",
        "function_id": "w",
        "started_before": datetime.now(UTC).isoformat(),
        "if": "event.data.signal == 'a'",
    }
    answer = await waiting.http.post(f"{waiting.engine.url}/v1/cancellations", json=wanted)
    assert answer.status_code == 200
    statuses = [(await waiting.runs(id))[0]["status"] for id in ids]
    assert statuses == ["Cancelled", "Running"]


@pytest.mark.parametrize("body", [b"{", b"[]", b"{}", b'{"signal": 5}'])
async def test_what_is_no_signal_is_refused(world, body):
    answer = await world.http.post(f"{world.engine.url}/v1/signals", content=body)
    assert (answer.status_code, answer.json()["status"]) == (400, 400)
