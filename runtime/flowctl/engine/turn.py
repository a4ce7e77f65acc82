"""One turn, purely: what an SDK answered to a request, as effects on its run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any

from flowctl.engine.expressions import InvalidExpressionError, compiled
from flowctl.engine.limits import MAX_WAIT_MS, invalid_condition, too_long
from flowctl.engine.protocol import duration_ms, parsed_json, time_ms

BACKOFF_MS = (2_000, 5_000, 15_000, 30_000, 60_000, 120_000, 300_000, 600_000)
DAY_MS = 86_400_000
LOST_WAITS_MS = (100, 200, 400, 800, 1_500)
"""Never two seconds: runs go on as soon as a worker is there again."""
YEAR_MS = 365 * DAY_MS
OK, CREATED, PARTIAL = 200, 201, 206


@dataclass(frozen=True, slots=True)
class Call:
    """The request that was answered."""

    target: str
    attempt: int
    max_attempts: int
    now: int
    backoff: Sequence[int] = BACKOFF_MS
    """Milliseconds after each failed try; the last is that of all further ones."""

    @property
    def is_last(self) -> bool:
        """Whether a failure of it is final."""
        return self.attempt + 1 >= self.max_attempts


@dataclass(frozen=True, slots=True)
class Reply:
    """An SDK's answer, its body parsed."""

    status: int
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True, slots=True)
class Finish:
    """The function ended."""

    failed: bool
    output: Any


@dataclass(frozen=True, slots=True)
class Memoize:
    """A step ended with `{"data": …}`, `{"error": …}` or (a `Step`) any JSON, at its n-th try (from 0 on)."""

    step_id: str
    body: Any
    name: str = ""
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """A parallel step is to be called by its id."""

    step_id: str
    race: bool
    name: str = ""


@dataclass(frozen=True, slots=True)
class Sleep:
    """A step that ends by itself at a time."""

    step_id: str
    until: int
    race: bool
    name: str = ""


@dataclass(frozen=True, slots=True)
class Wait:
    """A step that ends with an event, or with null at a time."""

    step_id: str
    event: str
    condition: str | None
    until: int
    race: bool
    name: str = ""


@dataclass(frozen=True, slots=True)
class Invoke:
    """A step that ends with another function's run."""

    step_id: str
    slug: str
    payload: Mapping[str, Any]
    until: int
    race: bool
    name: str = ""


@dataclass(frozen=True, slots=True)
class Signal:
    """A step that ends with a signal, or with null at a time; it may replace another run's that waits."""

    step_id: str
    signal: str
    until: int
    race: bool
    name: str = ""
    replaces: bool = False


@dataclass(frozen=True, slots=True)
class Fetch:
    """A step that ends with the answer to a request that the engine makes; `request` is the opcode's."""

    step_id: str
    request: Mapping[str, Any]
    race: bool
    name: str = ""


@dataclass(frozen=True, slots=True)
class Defer:
    """A function is to be started once the run has ended; `input` and `meta` are as the SDK sent them."""

    step_id: str
    slug: str
    input: Any
    meta: Any


@dataclass(frozen=True, slots=True)
class AbortDefer:
    """What was deferred is not to be started."""

    step_id: str


@dataclass(frozen=True, slots=True)
class Note:
    """Something to remember of a step, or with no step id of the run; see `run_metadata`."""

    step_id: str
    kind: str
    operation: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Drop:
    """A planned step is no longer asked for."""

    step_id: str


@dataclass(frozen=True, slots=True)
class Retry:
    """The request is to be repeated; one that `was_sent` may have reached the app."""

    due: int
    attempt: int
    was_sent: bool = True


@dataclass(frozen=True, slots=True)
class Discover:
    """The function is to be called again, though no step ended."""


Aside = Defer | AbortDefer | Note
"""What travels beside the opcodes that move a run on."""
Effect = Finish | Memoize | Plan | Sleep | Wait | Invoke | Signal | Fetch | Aside | Drop | Retry | Discover


def effects_of(reply: Reply, call: Call) -> list[Effect]:
    """What a reply does to its run."""
    final = reply.headers.get("x-inngest-no-retry") == "true"
    if reply.status in {OK, CREATED}:
        return [Finish(failed=False, output=reply.body)]
    if reply.status == PARTIAL and isinstance(reply.body, list | Mapping):
        last = replace(call, max_attempts=call.attempt + 1) if final else call
        opcodes = [reply.body] if isinstance(reply.body, Mapping) else reply.body
        return _of_opcodes(opcodes, last, reply.headers.get("retry-after"))
    if final or call.is_last:
        return [Finish(failed=True, output=error_body(reply))]
    return [Retry(_retry_time(reply.headers.get("retry-after"), call), call.attempt + 1)]


def backed_off(call: Call) -> Retry:
    """The next try, later the more there were."""
    return Retry(_retry_time(None, call), call.attempt + 1)


def broken(call: Call) -> Effect:
    """When the connection ended before the answer: the worker may have died of it, so it counts as a try."""
    if call.is_last:
        output = {"name": "Error", "message": "The connection to the app broke before it answered."}
        return Finish(failed=True, output=output)
    return Retry(call.now + _lost_wait(call.attempt), call.attempt + 1)


def unreached(call: Call, times: int) -> Retry:
    """When nothing listened, for the n-th time in a row: no try of the run's."""
    return Retry(call.now + _lost_wait(times), call.attempt, was_sent=False)


def _lost_wait(times: int) -> int:
    return LOST_WAITS_MS[min(times, len(LOST_WAITS_MS) - 1)]


def shown_name(op: Mapping[str, Any]) -> str:
    """What people call an opcode's step."""
    return str(op.get("displayName") or op.get("name") or op["id"])


def finish_endpoint(result: Any) -> Finish:
    """The end of a run that answers an HTTP request, from `{status, headers, body}`; raises TypeError."""
    if not isinstance(result, Mapping) or not isinstance(result.get("status"), int):
        raise TypeError("the result of an endpoint has no status")
    return Finish(failed=not OK <= result["status"] < 300, output=dict(result))


def not_understood(headers: Mapping[str, str], call: Call, why: str) -> list[Effect]:
    """What is done when an answer is none of an SDK, or not as the protocol says: it is a failed try."""
    return effects_of(Reply(500, headers, {"name": "Error", "message": why}), call)


def error_body(reply: Reply) -> Any:
    """A failed function's output."""
    body = _decoded(reply.body) if isinstance(reply.body, str) else reply.body
    if isinstance(body, Mapping):
        return body
    return {"name": "Error", "message": str(body or f"The app answered with status {reply.status}.")}


def _decoded(text: str) -> Any:
    """The error that a text is the JSON of, which old SDKs encode twice; else the text."""
    try:
        return parsed_json(text)
    except ValueError:
        return text


def asides(opcodes: Iterable[Mapping[str, Any]]) -> list[Aside]:
    """What opcodes ask for beside what they do to their run."""
    found: list[Aside] = []
    for op in opcodes:
        if is_deferral(op):
            found.append(_deferral(op["op"], str(op["id"]), op.get("opts") or {}))
        found += _notes(op)
    return found


def is_deferral(op: Mapping[str, Any]) -> bool:
    """Whether an opcode is about what comes after the run's end."""
    return op.get("op") in {"DeferAdd", "DeferAbort"}


def _notes(op: Mapping[str, Any]) -> Iterator[Note]:
    for entry in op.get("metadata") or ():
        if isinstance(entry, Mapping) and isinstance(entry.get("values"), Mapping):
            step_id = "" if entry.get("scope") == "run" else str(op["id"])
            yield Note(step_id, str(entry.get("kind")), str(entry.get("op")), entry["values"])


def _deferral(kind: str, id: str, opts: Mapping[str, Any]) -> Defer | AbortDefer:
    if kind == "DeferAbort":
        return AbortDefer(str(opts.get("target_hashed_id")))
    return Defer(id, str(opts.get("fn_slug") or ""), opts.get("input"), opts.get("meta"))


def _of_opcodes(opcodes: Sequence[Mapping[str, Any]], call: Call, retry_after: str | None) -> list[Effect]:
    """What is beside comes first, since an opcode may end the run; deferrals alone move it on."""
    if not opcodes:
        return [Drop(call.target)]
    others = [op for op in opcodes if not is_deferral(op)]
    effects = [effect for op in others for effect in _of_opcode(op, call, retry_after)]
    return [*asides(opcodes), *(effects if others else [Discover()])]


def _of_opcode(op: Mapping[str, Any], call: Call, retry_after: str | None) -> list[Effect]:  # noqa: PLR0911 - a flat match
    match op["op"]:
        case "StepRun" | "Step":
            return [Memoize(str(op["id"]), _step_memo(op), shown_name(op), call.attempt)]
        case "StepError" | "StepFailed":
            return [_of_error(op, call, retry_after)]
        case "StepNotFound":
            return [Drop(call.target)]
        case "RunComplete":
            return [Finish(failed=False, output=op.get("data"))]
        case "SyncRunComplete":
            return [finish_endpoint((op.get("data") or {}).get("data"))]
        case "DiscoveryRequest":
            return [Discover()]
        case "None":  # nothing to do, unless that is all there is and nothing else is under way
            return [Drop(call.target)]
        case _:
            return [_of_waiting(op, call)]


def _step_memo(op: Mapping[str, Any]) -> Any:
    """What a step that ended is remembered by; old SDKs, whose opcode is `Step`, get back what they sent."""
    return op.get("data") if op["op"] == "Step" else {"data": op.get("data")}


def _of_error(op: Mapping[str, Any], call: Call, retry_after: str | None) -> Effect:
    error = op.get("error") or {}
    if op["op"] == "StepError" and not call.is_last and not error.get("noRetry"):
        return Retry(_retry_time(error.get("retryAfter") or retry_after, call), call.attempt + 1)
    return Memoize(str(op["id"]), {"error": _step_error(op)}, shown_name(op), call.attempt)


def _of_waiting(op: Mapping[str, Any], call: Call) -> Effect:  # noqa: PLR0911 - a flat match
    """An opcode of a step that ends later."""
    id, kind, name = str(op["id"]), op["op"], shown_name(op)
    opts: Mapping[str, Any] = op.get("opts") or {}
    race = opts.get("parallelMode") == "race"
    match kind:
        case "StepPlanned":  # again, by the request that was to run it
            return Drop(id) if id == call.target else Plan(id, race, name)
        case "Sleep":
            return _sleep(op, opts, call, race=race)
        case "Gateway" | "AIGateway":
            return Fetch(id, {"op": kind, "opts": opts}, race, name)
        case "WaitForEvent":
            return _wait(op, opts, call, race=race)
        case "WaitForSignal":
            until, replaces = _end(opts.get("timeout"), call.now), opts.get("conflict") == "replace"
            return Signal(id, str(opts["signal"]), until, race, name, replaces)
        case "InvokeFunction":
            until = _end(opts.get("timeout"), call.now)
            return Invoke(id, str(opts["function_id"]), _payload(opts), until, race, name)
        case _:
            message = f"This engine does not know the step kind {kind!r}."
            return Memoize(id, {"error": {"name": "Error", "message": message}})


def _payload(opts: Mapping[str, Any]) -> Mapping[str, Any]:
    payload = opts.get("payload") or {}
    if not isinstance(payload, Mapping):
        raise TypeError("the payload of an invocation is no object")
    return payload


def _sleep(op: Mapping[str, Any], opts: Mapping[str, Any], call: Call, *, race: bool) -> Effect:
    """Until a time; one that says none is over at once: older SDKs write nothing for less than a second."""
    text = str(opts.get("duration") or op["name"] or "")
    until = _moment(text, call.now) if text else call.now
    if until - call.now > MAX_WAIT_MS:
        return Finish(failed=True, output=too_long("sleep", text))
    return Sleep(str(op["id"]), until, race, shown_name(op))


def _wait(op: Mapping[str, Any], opts: Mapping[str, Any], call: Call, *, race: bool) -> Effect:
    """The wait's timeout is over at once when the SDK says none: it had a negative one."""
    text, condition = str(opts.get("timeout") or ""), str(opts.get("if") or "") or None
    until = _moment(text, call.now) if text else call.now
    if until - call.now > MAX_WAIT_MS:
        return Finish(failed=True, output=too_long("wait", text))
    try:
        if condition:
            compiled(condition)
    except InvalidExpressionError as err:
        return Finish(failed=True, output=invalid_condition(str(err)))
    return Wait(str(op["id"]), str(opts.get("event") or op["name"]), condition, until, race, shown_name(op))


def _step_error(op: Mapping[str, Any]) -> dict[str, Any]:
    error = op.get("error") or {}
    known = {key: error[key] for key in ("name", "message", "stack", "cause") if error.get(key) is not None}
    return {"name": "Error", "message": ""} | known


def _end(timeout: Any, now: int) -> int:
    return _moment(str(timeout), now) if timeout else now + YEAR_MS


def _moment(text: str, now: int) -> int:
    try:
        return now + duration_ms(text)
    except ValueError:
        return time_ms(text)


def _retry_time(after: Any, call: Call) -> int:
    default = call.now + call.backoff[min(call.attempt, len(call.backoff) - 1)]
    if not after:
        return default
    for read in (_seconds_from(call.now), time_ms, _http_date):
        try:
            return min(read(str(after)), call.now + DAY_MS)
        except (OverflowError, TypeError, ValueError):
            continue
    return default


def _seconds_from(now: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        return now + round(float(text) * 1000)

    return read


def _http_date(text: str) -> int:
    return round(parsedate_to_datetime(text).timestamp() * 1000)
