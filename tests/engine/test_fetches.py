"""Requests that a run has the engine make: what is sent, and what an answer comes to."""

from __future__ import annotations

import json

import pytest

from flowctl.engine.fetches import end_of, request_of
from flowctl.engine.transport import Answer


def ai(format: str, **opts) -> dict:
    return {
        "op": "AIGateway",
        "opts": {"url": "http://llm/v1", "auth_key": "k", "format": format, "body": {"q": 1}, **opts},
    }


@pytest.mark.parametrize(
    ("format", "url", "header"),
    [
        ("openai-chat", "http://llm/v1", {"Authorization": "Bearer k"}),
        ("anthropic", "http://llm/v1", {"X-Api-Key": "k"}),
        ("bedrock", "http://llm/v1", {"Authorization": "k"}),
        ("gemini", "http://llm/v1?key=k", {}),
    ],
)
def test_an_inference_bears_its_key_as_the_provider_wants_it(format, url, header):
    request = request_of(ai(format, headers={"X-Mine": "1"}))
    assert (request.method, request.url) == ("POST", url)
    assert request.headers == {"Content-Type": "application/json", "X-Mine": "1"} | header
    assert json.loads(b"".join(request.body)) == {"q": 1}


def test_an_inference_gives_the_json_or_the_error_of_its_answer():
    assert end_of(ai("openai-chat"), Answer(200, {}, b'{"a": 1}')) == {"data": {"a": 1}}
    error = end_of(ai("openai-chat"), Answer(429, {}, b"slow down"))["error"]
    assert (error["name"], error["stack"]) == ("AIGatewayError", "slow down")
    assert error["message"] == "Error making AI request: unsuccessful status code: 429"


def test_a_fetch_gives_the_whole_answer_whatever_its_status():
    detail = {"op": "Gateway", "opts": {"url": "http://x", "method": "PUT", "body": "text"}}
    request = request_of(detail)
    assert (request.method, request.body) == ("PUT", (b"text",))
    assert end_of(detail, Answer(404, {"a": "b"}, b"gone")) == {
        "data": {"url": "http://x", "headers": {"a": "b"}, "body": "gone", "status_code": 404}
    }
