"""How large what senders and apps hand over may be: the limits of the real server, with its errors."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import httpx
import orjson
import pytest
from plain_app import Asked, ended, plain_app, ran
from starlette.responses import JSONResponse, Response

from flowctl.engine import Engine, EngineConfig
from flowctl.engine.intake import MAX_EVENT_BYTES, MAX_EVENTS

MB = 2**20
LARGE_STEP = "x" * (4 * MB - 100)


def event(size: int) -> dict[str, Any]:
    """An event of so many bytes."""
    empty = orjson.dumps({"name": "t/e", "data": {"text": ""}})
    return {"name": "t/e", "data": {"text": "x" * (size - len(empty))}}


@pytest.fixture
async def app():
    async with plain_app() as app:
        yield app


@pytest.mark.parametrize(
    ("sent", "status", "reason"),
    [
        (event(MAX_EVENT_BYTES), 200, None),
        (event(MAX_EVENT_BYTES + 1), 400, "Event is over the max size"),
        ([event(10), event(MAX_EVENT_BYTES + 1)], 400, "Event is over the max size"),
        ([event(MAX_EVENT_BYTES)] * 4, 200, None),
        ([event(MAX_EVENT_BYTES)] * 6, 400, "The body is larger than"),
        ([event(50)] * (MAX_EVENTS + 1), 400, f"A request holds {MAX_EVENTS} events at most"),
    ],
    ids=["largest", "too large", "one too large", "several", "body too large", "too many"],
)
async def test_an_event_is_taken_up_to_three_megabytes_and_a_request_up_to_sixteen(sent, status, reason):
    async with Engine(EngineConfig(port=0)) as engine, httpx.AsyncClient(timeout=30) as http:
        answer = await http.post(f"{engine.url}/e/k", content=orjson.dumps(sent))
        kept = (await http.get(f"{engine.url}/v1/events?limit=1")).json()["data"]
    assert (answer.status_code, bool(kept)) == (status, status == 200)
    assert reason is None or reason in answer.json()["error"]


async def test_an_answer_of_an_app_is_taken_up_to_eight_megabytes(app):
    async def handler(_: Asked) -> Response:
        return ended("x" * 8 * MB)

    run = await app.run(handler)
    message = "Your function's response body exceeds the maximum size limit"
    assert (run["status"], run["output"]["message"], len(app.asked)) == ("Failed", message, 1)


async def test_a_run_whose_state_is_too_large_fails_and_says_so(app):
    async def handler(asked: Asked) -> Response:
        return JSONResponse([ran(str(len(app.asked)), LARGE_STEP)], 206)

    run = await app.run(handler)
    assert (run["status"], run["output"]["name"]) == ("Failed", "InngestErrStateOverflowed")
    assert run["output"]["message"] == "The function run exceeded the state size limit of 33554432 bytes."


async def test_a_checkpoint_that_makes_the_state_too_large_is_refused_and_nothing_of_it_is_kept(app):
    statuses: list[int] = []

    async def handler(asked: Asked) -> Response:
        answers = [await asked.checkpoint(ran(str(number), LARGE_STEP)) for number in range(10)]
        statuses.extend(answer.status_code for answer in answers)
        return ended()

    await app.run(handler)
    assert statuses == [200] * 8 + [413] * 2
    stored = await app.http.get(f"{app.engine.url}/v0/runs/{app.asked[0].ctx['run_id']}/actions")
    assert list(stored.json()) == [str(number) for number in range(8)]


@pytest.mark.parametrize("header", [{"host": "evil.example"}, {"origin": "https://evil.example"}])
@pytest.mark.parametrize(
    "path", ["/e/k", "/fn/register", "/v0/gql", "/v1/signals", "/api/v2/apps/a/functions/f/invoke"]
)
async def test_what_a_foreign_page_makes_a_browser_send_is_refused(path, header):
    async with Engine(EngineConfig(port=0)) as engine, httpx.AsyncClient() as http:
        answer = await http.post(f"{engine.url}{path}", json={"name": "t/e"}, headers=header)
    assert (answer.status_code, answer.text) == (403, "This engine answers its own machine only.")


async def test_a_sender_that_goes_away_in_the_middle_of_its_request_is_no_error_of_the_engine(caplog):
    async with Engine(EngineConfig(port=0)) as engine, httpx.AsyncClient() as http:
        port = int(engine.url.rpartition(":")[2])
        for path in ("/e/k", "/v1/realtime/publish/tee?channel=c&topic=t"):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{{".encode())
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        assert (await http.get(f"{engine.url}/health")).status_code == 200
    assert caplog.records == []


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8288", "[::1]:8288", "host.docker.internal"])
async def test_this_machine_is_answered_by_each_of_its_names(host):
    async with Engine(EngineConfig(port=0)) as engine, httpx.AsyncClient() as http:
        assert (await http.get(f"{engine.url}/health", headers={"host": host})).status_code == 200


async def test_an_engine_is_reached_from_this_machine_alone_unless_it_is_told_otherwise():
    with contextlib.closing(Engine(EngineConfig(port=0))._listener) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize(
    ("config", "warning"),
    [
        (EngineConfig(), None),
        (EngineConfig(host="0.0.0.0"), "without --signing-key whoever reaches this machine"),
        (EngineConfig(signing_keys=("00ff",)), "without --event-key every program of this machine"),
        (EngineConfig(host="0.0.0.0", signing_keys=("00ff",)), "without --event-key whoever"),
        (EngineConfig(host="0.0.0.0", signing_keys=("00ff",), event_keys=("k",)), None),
    ],
)
def test_an_engine_that_is_open_to_strangers_says_so(config, warning):
    assert [text[: len(warning or "")] for text in config.warnings] == ([warning] if warning else [])
