"""Requests that are odd, wrong, or broken off: each is answered clearly, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from flowctl import App, MemoryStorage, create_step, create_workflow
from tests.server.conftest import make_app

JSON = {"content-type": "application/json"}
START = "/api/workflows/counter/start-async"


async def echo(ctx: Any) -> Any:
    return ctx.input_data


@pytest.fixture
async def free(serve_app):
    """A client of a workflow that takes anything."""
    workflow = create_workflow(id="free").then(create_step(id="echo", execute=echo)).commit()
    url = await serve_app(App(workflows=[workflow], storage=MemoryStorage()))
    async with httpx.AsyncClient(base_url=f"{url}/api/workflows/free", timeout=30) as client:
        yield client


@pytest.mark.parametrize("id", ["a/b", "a b?c#d", "é/ü/中", "100%", "%2F", "..", "a" * 200])
async def test_any_printable_id_of_a_run_can_be_asked_for(http, id: str) -> None:
    runs, named = "/api/workflows/counter/runs", quote(id, safe="")
    created = await http.post("/api/workflows/counter/create-run", params={"runId": id})
    assert created.json() == {"runId": id}
    if id != "..":  # which clients resolve before they ask
        assert (await http.get(f"{runs}/{named}")).json()["runId"] == id
        assert (await http.post(f"{runs}/{named}/cancel")).status_code == 200
        assert (await http.delete(f"{runs}/{named}")).status_code == 200


@pytest.mark.parametrize(("id", "field"), [("a" * 201, "runId"), ("", "runId"), ("a\x00b", "runId")])
async def test_an_id_that_cannot_be_kept_is_named(http, id: str, field: str) -> None:
    answer = await http.post("/api/workflows/counter/create-run", params={"runId": id})
    assert (answer.status_code, answer.json()["issues"][0]["field"]) == (400, field)


async def test_a_slash_at_the_end_changes_nothing(http) -> None:
    listed = (await http.get("/api/workflows")).json()
    assert (await http.get("/api/workflows/")).json() == listed
    assert "runId" in (await http.post("/api/workflows/counter/create-run/", json={})).json()
    assert (await http.get("/api/")).json()["code"] == "NOT_FOUND"


async def test_head_answers_as_get_without_a_body(http) -> None:
    answer = await http.head("/api/workflows")
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) > 0
    assert (await http.head("/api/workflows/counter/runs/nope")).status_code == 404


@pytest.mark.parametrize("method", ["OPTIONS", "PATCH", "TRACE", "PUT"])
async def test_other_methods_are_told_which_there_are(http, method: str) -> None:
    answer = await http.request(method, "/api/workflows/counter")
    assert (answer.status_code, answer.json()["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert "GET" in answer.headers["allow"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b'{"inputData": NaN}', "Invalid JSON"),
        (b'{"inputData": [-Infinity]}', "Invalid JSON"),
        (b'{"inputData": [1, 1e999]}', "inputData.1"),
        (b'{"inputData": 99999999999999999999999}', "inputData"),
        (b'{"inputData": "\xff\xfe"}', "unicode"),
        (b'{"inputData": "\\ud800"}', "escape"),
        (b"[" * 100_000, "recursion limit"),
        (b'{"inputData": ' + b'{"a":' * 5_000 + b"1" + b"}" * 5_001, "recursion limit"),
        (b"not json", "Invalid JSON"),
        (b"null", ""),
    ],
)
async def test_a_body_that_is_no_json_to_keep_is_refused(free, body: bytes, says: str) -> None:
    answer = await free.post("/start-async", content=body, headers=JSON)
    assert answer.status_code == 400
    assert says in json.dumps(answer.json()["issues"]) + answer.json()["error"]
    assert (await free.get("/runs")).json()["total"] == 0


@pytest.mark.parametrize(
    "input", [None, 0, -(2**63), 2**64 - 1, 1e308, "", "\x00", "é\n", [], {"": {}}, [[[]]], "x" * 100_000]
)
async def test_other_json_comes_back_as_it_was(free, input: Any) -> None:
    answer = (await free.post("/start-async", json={"inputData": input})).json()
    assert (answer["status"], answer["result"]) == ("success", input)


async def test_a_byte_order_mark_and_other_json_types_are_taken(free) -> None:
    sent = b'\xef\xbb\xbf{"inputData": 1}'
    for kind in ("application/json; charset=utf-8", "application/merge-patch+json", "APPLICATION/JSON"):
        answer = await free.post("/start-async", content=sent, headers={"content-type": kind})
        assert answer.json()["result"] == 1


@pytest.mark.parametrize(
    ("headers", "says"),
    [
        ({"content-type": "text/plain"}, "text/plain"),
        ({"content-type": "application/x-www-form-urlencoded"}, "form"),
        ({}, "of no type"),
        (JSON | {"content-encoding": "gzip"}, "gzip"),
    ],
)
async def test_a_body_of_another_type_is_told_how_to_be_sent(
    free, headers: dict[str, str], says: str
) -> None:
    answer = await free.post("/start-async", content=gzip.compress(b"{}"), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert says in answer.json()["error"]


async def test_what_is_not_known_is_passed_over(free) -> None:
    body = {"inputData": 1, "tracingOptions": {"traceId": "x"}, "other": [2**70]}
    answer = await free.post("/start-async?unknown=1&runId=r&runId=s", json=body)
    assert (answer.status_code, answer.json()["runId"]) == (200, "s")


async def test_a_date_that_is_none_is_named_in_words(http) -> None:
    answer = await http.get("/api/workflows/counter/runs?fromDate=soon")
    assert answer.json()["issues"] == [
        {"field": "fromDate", "message": "Input should be an ISO 8601 date or time"}
    ]


async def test_of_resumes_at_the_same_time_one_wins_and_the_others_are_told(http) -> None:
    started = (await http.post("/api/workflows/talk/start-async", json={"inputData": {"value": 1}})).json()
    url = f"/api/workflows/talk/resume-async?runId={started['runId']}"
    body = {"step": "ask", "resumeData": {"add": 1}}
    answers = await asyncio.gather(*(http.post(url, json=body) for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200, *[409] * 7]


async def raw(http: httpx.AsyncClient, sent: bytes) -> bytes:
    """What a server answers to these bytes on a connection of their own."""
    reader, writer = await asyncio.open_connection(http.base_url.host, http.base_url.port)
    writer.write(sent)
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    return answer


async def test_http_1_0_without_a_host_is_answered(http) -> None:
    answer = await raw(http, b"GET /api/workflows/counter HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["name"] == "counter"


async def test_a_stream_over_http_1_0_ends_with_the_connection(http) -> None:
    run = (await http.post(START, json={"inputData": {"value": 9}})).json()["runId"]
    path = f"/api/workflows/counter/observe?runId={run}".encode()
    answer = await raw(http, b"GET %b HTTP/1.0\r\naccept: application/x-ndjson\r\n\r\n" % path)
    lines = answer.partition(b"\r\n\r\n")[2].splitlines()
    assert [json.loads(line)["type"] for line in lines if line.startswith(b"{")][-1] == "workflow-finish"


@pytest.mark.parametrize(
    "host", [b"[::1", b"", b"evil.example", b"127.0.0.1.evil.example", b"a@evil.example"]
)
async def test_a_host_that_is_not_this_machine_is_refused_in_development(
    serve_app, monkeypatch, host: bytes
) -> None:
    monkeypatch.setenv("FLOWCTL_ENV", "development")
    url = await serve_app(make_app())
    async with httpx.AsyncClient(base_url=url) as http:
        answer = await raw(http, b"GET / HTTP/1.1\r\nconnection: close\r\nhost: %b\r\n\r\n" % host)
    assert answer.startswith(b"HTTP/1.1 403")
    assert b"FORBIDDEN" in answer


async def test_a_body_that_does_not_come_is_given_up(serve_app, monkeypatch) -> None:
    monkeypatch.setattr("flowctl.server.operations.READ_SECONDS", 0.1)
    url = await serve_app(make_app())
    head = b"POST %b HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n"
    async with httpx.AsyncClient(base_url=url) as http:
        answer = await raw(http, head % START.encode() + b"content-length: 99\r\n\r\n{")
    assert answer.startswith(b"HTTP/1.1 408")


async def test_a_stream_whose_client_goes_away_leaves_nothing_behind(serve_app) -> None:
    app = make_app()
    url = await serve_app(app)
    async with httpx.AsyncClient(base_url=url, timeout=30) as http:
        sent = {"inputData": {"value": 1}}
        async with http.stream("POST", "/api/workflows/slow/stream?runId=s", json=sent) as answer:
            await anext(answer.aiter_bytes())
            assert len(app.asgi.state.streams._open) == len(app.feed._waiters) == 1
        async with asyncio.timeout(20):
            while app.asgi.state.streams._open or app.feed._waiters:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
        await http.post("/api/workflows/slow/runs/s/cancel")


async def test_a_client_that_goes_away_while_it_sends_leaves_the_server_well(http) -> None:
    head = b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"
    _, writer = await asyncio.open_connection(http.base_url.host, http.base_url.port)
    writer.write(head % START.encode())
    await writer.drain()
    writer.transport.abort()
    assert (await http.get("/health")).status_code == 200
