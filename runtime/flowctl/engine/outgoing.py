"""The requests that the engine makes to apps. Pure; stored JSON of events and steps is passed on unparsed."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import orjson

from flowctl.engine.memos import Memo
from flowctl.engine.protocol import ENDPOINT_EVENT, Function, dispatch_id, queue_reference
from flowctl.engine.signing import HEADER, Keys, outbound
from flowctl.engine.starts import DISCOVERY
from flowctl.engine.store import Job, RunRow

MAX_BODY_BYTES = 4 * 2**20
"""Larger requests go without events and steps: the SDK fetches them (`use_api`)."""
_STEP = f"stepId={DISCOVERY}"


@dataclass(frozen=True, slots=True)
class State:
    """What is known of a run when its function is called."""

    memo: Memo
    is_planned: bool
    """Whether other steps are under way, so that new ones are to be planned and not run at once."""
    defers: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What the run has asked for after its end, by step."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One HTTP request; its body is in pieces, so that what is large is sent without being copied."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: Sequence[bytes]

    @property
    def size(self) -> int:
        """Bytes of memory that its body takes: pieces may stand in it twice."""
        return sum({id(piece): len(piece) for piece in self.body}.values())


def to_function(job: Job, run: RunRow, function: Function, state: State, keys: Keys, *, now: int) -> Outgoing:
    """A call of a registered function."""
    request_id = dispatch_id(now, job.id, job.generation)
    body = _body(job, run, function, state, request_id)
    headers = {
        "content-type": "application/json",
        **_headers(job, run, keys, request_id),
        **(outbound(keys, b"".join(body), now=now) if keys.signs else {}),
    }
    return Outgoing("POST", _step_url(function.url, job.target), headers, body)


def _step_url(url: str, target: str) -> str:
    """The URL to call for a step, whether or not the SDK wrote a place for that into it."""
    if target == DISCOVERY and _STEP in url:
        return url
    step = f"stepId={quote(target, safe='')}"
    return url.replace(_STEP, step) if _STEP in url else f"{url}{'&' if '?' in url else '?'}{step}"


def to_endpoint(job: Job, run: RunRow, function: Function, state: State, keys: Keys, *, now: int) -> Outgoing:
    """The repetition of the HTTP request that began a run; the SDK fetches steps and knows us by headers."""
    asked = run.event["data"] if run.event.get("name") == ENDPOINT_EVENT else {}
    query = str(asked.get("query_params") or "")
    body = _original_body(str(asked.get("body") or ""))
    headers = {
        "content-type": str(asked.get("content_type") or "application/json"),
        **_headers(job, run, keys, dispatch_id(now, job.id, job.generation)),
        HEADER: "",
        **outbound(keys, body, now=now),
    }
    if state.is_planned or job.target != DISCOVERY:
        headers["x-inngest-force-step-plan"] = "true"
    if job.target == DISCOVERY:
        del headers["x-inngest-step-id"]
    url = run.url or function.url
    return Outgoing(function.endpoint_method or "POST", f"{url}?{query}" if query else url, headers, (body,))


def _headers(job: Job, run: RunRow, keys: Keys, request_id: str) -> dict[str, str]:
    return {
        "user-agent": "Inngest",
        "x-inngest-server-kind": keys.kind,
        "x-inngest-req-version": str(run.sdk_version),
        "traceparent": _trace_of(run.run_id),
        "x-run-id": run.run_id,
        "x-request-id": request_id,
        "x-inngest-generation-id": str(job.generation),
        "x-inngest-job-id": str(job.id),
        "x-inngest-step-id": quote(job.target, safe=""),
    }


def _trace_of(run_id: str) -> str:
    """The W3C trace context that all requests of a run share: apps put their spans below it."""
    digest = hashlib.blake2b(run_id.encode(), digest_size=24).hexdigest()
    return f"00-{digest[:32]}-{digest[32:]}-01"


def _body(job: Job, run: RunRow, function: Function, state: State, request_id: str) -> Sequence[bytes]:
    """The pieces of a body: the stored events are among them as they are."""
    event, events = run.event_json, run.batch_json
    use_api = 2 * len(events or event) + state.memo.size > MAX_BODY_BYTES
    context = _context(job, run, function, state, request_id, use_api=use_api)
    head = b'{"ctx":%b,"defers":%b,"event":' % (orjson.dumps(context), orjson.dumps(state.defers))
    tail = b',"steps":{%b},"use_api":%b,"version":%d}' % (
        b"" if use_api else state.memo.members,
        b"true" if use_api else b"false",
        run.sdk_version,
    )
    if use_api:
        return head, event, b',"events":[]', tail
    if events is not None:
        return head, event, b',"events":', events, tail
    return head, event, b',"events":[', event, b"]", tail


def _context(
    job: Job, run: RunRow, function: Function, state: State, request_id: str, *, use_api: bool
) -> dict[str, Any]:
    return {
        "run_id": run.run_id,
        "fn_id": function.id,
        "step_id": DISCOVERY,
        "attempt": job.attempt,
        "max_attempts": function.max_attempts,
        "disable_immediate_execution": state.is_planned or job.target != DISCOVERY,
        "stack": {"stack": orjson.Fragment(b"[%b]" % state.memo.ids), "current": state.memo.count},
        "use_api": use_api,
        "env": "",
        "generation_id": job.generation,
        "request_id": request_id,
        "job_id": str(job.id),
        "qi_id": queue_reference(job.id),
    }


def _original_body(text: str) -> bytes:
    """An HTTP request's body as an SDK kept it: Go's writes base64, JavaScript's the text itself."""
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return text.encode()
