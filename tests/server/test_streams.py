"""Run events over HTTP: forms, taking a stream up again, and servers that stop meanwhile."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from tests.server.conftest import make_app

FINISHED = ["workflow-start", "workflow-step-start", "workflow-step-result", "workflow-finish"]


async def finished(http) -> str:
    answer = await http.post("/api/workflows/counter/start-async", json={"inputData": {"value": 9}})
    return answer.json()["runId"]


def parsed(text: str) -> list[tuple[int, str]]:
    """The ids and event types of server-sent events."""
    events = [
        dict(line.split(": ", 1) for line in block.splitlines()) for block in text.split("\n\n") if block
    ]
    return [(int(event["id"]), json.loads(event["data"])["type"]) for event in events if "data" in event]


async def test_server_sent_events_are_numbered_and_taken_up_after_the_last_one_seen(http) -> None:
    url = f"/api/workflows/counter/observe?runId={await finished(http)}"
    headers = {"accept": "text/event-stream"}
    answer = await http.get(url, headers=headers)
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = parsed(answer.text)
    assert [kind for _, kind in events] == FINISHED
    rest = await http.get(url, headers=headers | {"last-event-id": str(events[1][0])})
    assert parsed(rest.text) == events[2:]
    nothing = await http.get(url, headers=headers | {"last-event-id": str(events[-1][0])})
    assert nothing.status_code == 204


async def test_a_stream_that_is_taken_up_again_starts_nothing_again(http) -> None:
    run = await finished(http)
    url = f"/api/workflows/counter/stream?runId={run}"
    assert (await http.post(url, json={"inputData": {"value": 9}})).status_code == 409
    again = await http.post(url, json={"inputData": {"value": 9}}, headers={"last-event-id": "0"})
    assert [json.loads(chunk)["type"] for chunk in again.text.split("\x1e") if chunk] == FINISHED


async def test_observing_skips_what_was_seen(http) -> None:
    answer = await http.post(f"/api/workflows/counter/observe?runId={await finished(http)}&offset=3")
    assert [json.loads(chunk)["type"] for chunk in answer.text.split("\x1e") if chunk] == FINISHED[3:]


async def test_a_run_that_travelled_back_is_observed_to_its_last_end(http) -> None:
    run = await finished(http)
    travel = {"step": "increment", "inputData": {"value": 8}}
    await http.post(f"/api/workflows/counter/time-travel-async?runId={run}", json=travel)
    answer = await http.post(f"/api/workflows/counter/observe?runId={run}")
    types = [json.loads(chunk)["type"] for chunk in answer.text.split("\x1e") if chunk]
    assert types.count("workflow-finish") == 2


@pytest.mark.parametrize("id", ["x", "-1", "9" * 30])
async def test_a_last_event_id_that_is_no_number_is_refused(http, id: str) -> None:
    url = f"/api/workflows/counter/observe?runId={await finished(http)}"
    answer = await http.get(url, headers={"last-event-id": id})
    assert (answer.status_code, answer.json()["issues"][0]["field"]) == (400, "Last-Event-ID")


async def test_an_open_stream_ends_when_the_server_is_about_to_stop(serve_app) -> None:
    app = make_app()
    url = await serve_app(app)
    sent = {"inputData": {"value": 1}}
    async with (
        httpx.AsyncClient(base_url=url, timeout=30) as http,
        http.stream("POST", "/api/workflows/slow/stream?runId=s", json=sent) as answer,
    ):
        chunks = answer.aiter_bytes()
        first = await anext(chunks)
        app.drain()
        rest = [chunk async for chunk in chunks]
        assert b"workflow-start" in first
        assert b"workflow-finish" not in b"".join(rest)
        assert (await http.get("/api/workflows/slow/runs/s")).json()["status"] == "running"
        await http.post("/api/workflows/slow/runs/s/cancel")


async def test_a_client_that_leaves_does_not_end_the_run(serve_app) -> None:
    url = await serve_app(make_app())
    sent = {"inputData": {"value": 1}}
    async with httpx.AsyncClient(base_url=url, timeout=30) as http:
        waiting = http.post("/api/workflows/slow/start-async?runId=s", json=sent)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(waiting, 0.3)
        assert (await http.get("/api/workflows/slow/runs/s")).json()["status"] == "running"
        await http.post("/api/workflows/slow/runs/s/cancel")
