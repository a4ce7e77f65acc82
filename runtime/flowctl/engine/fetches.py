"""Requests that a run has the engine make: `step.fetch` and `step.ai.infer`. Pure.

Called by `executor`; what an opcode says becomes a request, what was answered becomes the step's end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import orjson

from flowctl.engine.outgoing import Outgoing
from flowctl.engine.protocol import parsed_json
from flowctl.engine.transport import Answer

AI, ANY = "AIGateway", "Gateway"
KINDS = frozenset({AI, ANY})


def request_of(detail: Mapping[str, Any]) -> Outgoing:
    """The request of an opcode, kept as `{"op": …, "opts": …}`."""
    opts: Mapping[str, Any] = detail["opts"]
    if detail["op"] == AI:
        return _inference(opts)
    body = opts.get("body")
    text = body if isinstance(body, str) else "" if body is None else orjson.dumps(body).decode()
    return Outgoing(str(opts.get("method") or "POST"), str(opts["url"]), _headers(opts), (text.encode(),))


def end_of(detail: Mapping[str, Any], answer: Answer) -> dict[str, Any]:
    """What a step comes to by an answer: its data, or an error that the step raises."""
    if detail["op"] == ANY:
        shown = {
            "url": detail["opts"]["url"],
            "headers": dict(answer.headers),
            "body": answer.body.decode(errors="replace"),
            "status_code": answer.status,
        }
        return {"data": shown}
    text = answer.body.decode(errors="replace")
    if answer.status > 299:
        return failure(detail, f"unsuccessful status code: {answer.status}", stack=text)
    try:
        return {"data": parsed_json(answer.body)}
    except ValueError:
        return {"data": text}


def failure(detail: Mapping[str, Any], reason: str, *, stack: str = "") -> dict[str, Any]:
    """The end of a step whose request came to nothing."""
    what = "AI" if detail["op"] == AI else "gateway"
    name = "AIGatewayError" if detail["op"] == AI else "GatewayError"
    return {"error": {"name": name, "message": f"Error making {what} request: {reason}", "stack": stack}}


def _inference(opts: Mapping[str, Any]) -> Outgoing:
    url, key, given = str(opts["url"]), str(opts.get("auth_key") or ""), _headers(opts)
    auth: dict[str, str] = {}
    match opts.get("format"):
        case "gemini":
            url += ("&" if "?" in url else "?") + urlencode({"key": key})
        case "bedrock":
            auth = {"Authorization": key}
        case "anthropic":
            auth = {"X-Api-Key": key}
        case _:
            auth = {"Authorization": f"Bearer {key}"}
    headers = {"Content-Type": "application/json", **auth, **given}
    return Outgoing("POST", url, headers, (orjson.dumps(opts.get("body")),))


def _headers(opts: Mapping[str, Any]) -> dict[str, str]:
    return {str(name).title(): str(value) for name, value in (opts.get("headers") or {}).items()}
