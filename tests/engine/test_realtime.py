"""Realtime: tokens, messages, streams; by WebSocket and by server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import pytest
import websockets

from flowctl.engine import Engine, EngineConfig
from flowctl.engine.realtime import InvalidTokenError, Tokens

KEY = "signkey-prod-" + "ab" * 16
TOPICS = [{"channel": "c", "name": "t", "kind": "run"}]


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with Engine(EngineConfig(port=0)) as engine, httpx.AsyncClient(base_url=engine.url) as client:
        yield client


async def token(http, topics=TOPICS) -> str:
    return (await http.post("/v1/realtime/token", json=topics)).json()["jwt"]


def address(http, token: str) -> str:
    return f"ws://{http.base_url.netloc.decode()}/v1/realtime/connect?token={token}"


async def heard(socket) -> dict:
    return json.loads(await asyncio.wait_for(socket.recv(), 10))


def test_a_token_opens_its_topics_for_a_minute_and_only_where_it_was_made():
    tokens = Tokens(b"a" * 32)
    made = tokens.made([("c", "t")], now=0)
    assert tokens.topics(made, now=60_000) == [("c", "t")]
    with pytest.raises(InvalidTokenError, match="expired"):
        tokens.topics(made, now=61_000)
    with pytest.raises(InvalidTokenError, match="invalid"):
        Tokens(b"b" * 32).topics(made, now=0)


@pytest.mark.parametrize(("sent", "data"), [(b'{"x": 1}', {"x": 1}), (b"plain text", "plain text")])
async def test_a_message_reaches_the_subscribers_of_its_topic_alone(http, sent, data):
    async with websockets.connect(address(http, await token(http))) as socket:
        await http.post("/v1/realtime/publish?channel=c&topic=other", content=b"1")
        await http.post("/v1/realtime/publish?channel=c&topic=t&run_id=r", content=sent)
        message = await heard(socket)
    assert message["kind"] == "data"
    assert (message["channel"], message["topic"], message["run_id"]) == ("c", "t", "r")
    assert message["data"] == data
    assert message["created_at"].endswith("Z")


async def test_lines_of_json_are_a_message_each(http):
    lines = {"content-type": "application/x-ndjson"}
    async with websockets.connect(address(http, await token(http))) as socket:
        url = "/v1/realtime/publish?channel=c&topic=t"
        answer = await http.post(url, content=b'1\n{"x": "a\\nb"}\n', headers=lines)
        heard_data = [(await heard(socket))["data"] for _ in range(2)]
    assert heard_data == [1, {"x": "a\nb"}]
    assert "application/x-ndjson" in answer.headers["accept-post"]


async def test_a_stream_is_passed_on_in_chunks_between_its_start_and_end(http):
    async def pieces():
        yield "grü".encode()[:3]  # in the middle of a character
        yield "grü".encode()[3:] + b"n"

    async with websockets.connect(address(http, await token(http))) as socket:
        url, headers = "/v1/realtime/publish?channel=c&topic=t", {"content-type": "text/stream"}
        await http.post(url, content=pieces(), headers=headers)
        messages = [await heard(socket)]
        while messages[-1]["kind"] != "datastream-end":
            messages.append(await heard(socket))
    start, *chunks, end = messages
    assert start["kind"] == "datastream-start"
    assert {chunk["kind"] for chunk in chunks} == {"chunk"}
    assert {start["data"], end["data"]} == {chunk["stream_id"] for chunk in chunks}
    assert "".join(chunk["data"] for chunk in chunks) == "grün"
    assert {(chunk["channel"], chunk["topic"]) for chunk in chunks} == {("c", "t")}


async def test_a_subscriber_may_ask_for_more_topics_and_for_fewer(http):
    more = [{"channel": "c", "name": "more"}]
    async with websockets.connect(address(http, await token(http))) as socket:
        await socket.send(json.dumps({"kind": "sub", "data": await token(http, more)}))
        await socket.send(json.dumps({"kind": "unsub", "data": TOPICS}))
        await socket.send("nonsense")
        await socket.ping()
        await asyncio.wait_for(await socket.ping(), 10)
        for topic in ("t", "more"):
            await http.post(f"/v1/realtime/publish?channel=c&topic={topic}", content=f'"{topic}"'.encode())
        assert (await heard(socket))["data"] == "more"


async def test_messages_come_as_server_sent_events_and_raw_bytes_as_they_are(http):
    topics = [*TOPICS, {"channel": "c", "name": "$stream"}]
    async with http.stream(
        "GET", f"/v1/realtime/sse?token={await token(http, topics)}", timeout=10
    ) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.aiter_lines()
        await http.post("/v1/realtime/publish?channel=c&topic=t", content=b"1")
        message = await anext(lines)
        await http.post("/v1/realtime/publish/tee?channel=c", content=b"event: raw\n")
        assert json.loads(message.removeprefix("data: "))["data"] == 1
        assert [await anext(lines), await anext(lines)] == ["", "event: raw"]


async def test_without_a_valid_token_nobody_subscribes(http):
    with pytest.raises(websockets.InvalidStatus) as refused:
        async with websockets.connect(address(http, "nonsense")):
            pass
    assert refused.value.response.status_code == 401
    assert (await http.get("/v1/realtime/sse?token=nonsense")).status_code == 401


async def test_in_production_only_bearers_of_the_key_publish_and_get_tokens():
    async with (
        Engine(EngineConfig(port=0, signing_keys=(KEY,))) as engine,
        httpx.AsyncClient(base_url=engine.url) as http,
    ):
        for path in ("token", "publish?channel=c&topic=t", "publish/tee?channel=c"):
            assert (await http.post(f"/v1/realtime/{path}", json=TOPICS)).status_code == 401
        bad = {"authorization": "Bearer " + Tokens(b"x").made([], now=0, publish=True)}
        answer = await http.post("/v1/realtime/publish?channel=c&topic=t", json=1, headers=bad)
        assert answer.status_code == 401


async def test_topics_in_another_shape_are_refused(http):
    answer = await http.post("/v1/realtime/token", json={"channel": "c"})
    assert (answer.status_code, answer.json()["error"]) == (
        400,
        "Invalid request: must provide a list of topics",
    )


@pytest.mark.parametrize(
    ("path", "kind", "limit"),
    [
        ("publish", "application/json", 2**19),
        ("publish", "text/stream", 2**20),
        ("publish/tee", "text/plain", 2**20),
    ],
)
async def test_what_is_too_large_to_be_published_is_told_its_limit(http, path, kind, limit):
    url, headers = f"/v1/realtime/{path}?channel=c&topic=t", {"content-type": kind}
    answer = await http.post(url, content=b"1" * (limit + 1), headers=headers)
    assert (answer.status_code, answer.json()["error"]) == (413, f"The body is larger than {limit} bytes.")
