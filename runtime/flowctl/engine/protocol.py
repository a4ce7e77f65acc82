"""What goes over the wire: events, functions, opcodes and the ids they carry."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson

from flowctl.engine import sessions

FAILED = "inngest/function.failed"
FINISHED = "inngest/function.finished"
CANCELLED = "inngest/function.cancelled"
INVOKED = "inngest/function.invoked"
SCHEDULED = "inngest/scheduled.timer"
DEFERRED = "inngest/deferred.schedule"
INTERNAL_PREFIX = "inngest/"
RESERVED = "_inngest"
"""Where in an event's data the engine notes what it is about."""
ENDPOINT_EVENT = "inngest/http.request"
DEFAULT_RETRIES, MAX_RETRIES = 4, 20
_SHOWN_RULES = (
    "batchEvents",
    "cancel",
    "concurrency",
    "debounce",
    "idempotency",
    "priority",
    "rateLimit",
    "singleton",
    "throttle",
    "timeouts",
)
MAX_DEPTH, _WRITABLE_DEPTH = 200, 254
"""Levels of JSON that are taken, and that `orjson` can write."""
ENVIRONMENT_ID = "00000000-0000-4000-b000-000000000000"
ACCOUNT_ID = "00000000-0000-4000-a000-000000000000"

_SHARD = "default"
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_UNITS_MS = {
    "ns": 1e-6,
    "us": 1e-3,
    "µs": 1e-3,
    "ms": 1,
    "s": 1000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 604_800_000,
}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h|d|w)")


class TooDeepError(ValueError):
    """JSON is nested more deeply than it could be passed on."""

    def __init__(self) -> None:
        super().__init__(f"it is nested more than {MAX_DEPTH} levels deep")


def parsed_json(body: bytes | bytearray | str) -> Any:
    """What a JSON text says; raises orjson.JSONDecodeError, and TooDeepError."""
    value, text = orjson.loads(body), body.encode() if isinstance(body, str) else body
    if text.count(b"[") + text.count(b"{") > MAX_DEPTH and _is_too_deep(value):
        raise TooDeepError
    return value


def _is_too_deep(value: Any) -> bool:
    """Whether it could not be written in as many more levels as events of events have."""
    for _ in range(_WRITABLE_DEPTH - MAX_DEPTH):
        value = [value]
    try:
        orjson.dumps(value)
    except TypeError:
        return True
    return False


def new_ulid(now: int) -> str:
    """A sortable id: 48 bits of epoch milliseconds, 80 of chance."""
    return _ulid((now << 80) | int.from_bytes(os.urandom(10)))


def first_ulid(ms: int) -> str:
    """The smallest id of a millisecond."""
    return _ulid(ms << 80)


def seeded_ulid(seed: str, index: int) -> str | None:
    """The id of a request's n-th event by its seed `ms,base64`, the same when the request is repeated."""
    ms, _, entropy = seed.partition(",")
    try:
        chance = int.from_bytes(base64.b64decode(entropy, validate=True))
        number = (int(ms) << 80) | ((chance + index) % 2**80)
    except ValueError:
        return None
    return _ulid(number) if 0 <= number < 2**128 and entropy else None


def dispatch_id(now: int, job_id: int, generation: int) -> str:
    """The id of one request to an app; all but its time follows from the job and how often it was taken."""
    chance = hashlib.sha256(f"{job_id}:{generation}".encode()).digest()[:10]
    return _ulid((now << 80) | int.from_bytes(chance))


def queue_reference(job_id: int) -> str:
    """What a request carries for its job, so that a checkpoint can name it."""
    return base64.b64encode(f"{job_id}::{_SHARD}".encode()).decode()


def referenced_job(reference: str) -> int | None:
    """The job that a checkpoint names."""
    try:
        id, _, shard = base64.b64decode(reference, validate=True).decode().partition("::")
    except ValueError:
        return None
    return int(id) if shard == _SHARD and id.isdecimal() else None


def _ulid(number: int) -> str:
    return "".join(_CROCKFORD[(number >> shift) & 31] for shift in range(125, -1, -5))


def is_ulid(id: str) -> bool:
    """Whether a text has the form of our ids."""
    return _ULID.fullmatch(id) is not None


def stable_id(*names: str) -> str:
    """The same UUID for the same names, in every process."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "/".join(names)))


def duration_ms(text: str) -> int:
    """Milliseconds of `1s`, `2h30m`, `1.5d`; raises ValueError for other texts."""
    parts = _DURATION.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is no duration such as '30s' or '1h30m'")
    return round(sum(float(number) * _UNITS_MS[unit] for number, unit in parts))


def time_ms(text: str) -> int:
    """Epoch milliseconds of an ISO time (UTC unless it says otherwise), or of a duration from now on."""
    moment = datetime.fromisoformat(text)
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def iso(ms: int, timespec: str = "milliseconds") -> str:
    """Epoch milliseconds as the API writes times; `timespec` as in `datetime.isoformat`."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec=timespec).replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Event:
    """An event that was taken in. `internal_id` is ours, `id` the sender's (or the same)."""

    internal_id: str
    id: str
    name: str
    data: Mapping[str, Any]
    user: Mapping[str, Any]
    ts: int
    received_at: int
    more: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Its version (`v`) and `meta`, where it has them."""

    def to_json(self) -> dict[str, Any]:
        """As functions see it."""
        return {
            "id": self.id,
            "name": self.name,
            "data": dict(self.data),
            "user": dict(self.user),
            "ts": self.ts,
            **self.more,
        }


class InvalidEventError(ValueError):
    """A sender's mistake, in the words that SDKs know."""


_JSON_KINDS: dict[type, str] = {
    bool: "bool",
    int: "number",
    float: "number",
    str: "string",
    list: "array",
    dict: "object",
}


_EVENT_FIELDS: Mapping[str, tuple[type, str]] = {
    "id": (str, "string"),
    "name": (str, "string"),
    "data": (dict, "map[string]interface {}"),
    "user": (dict, "map[string]interface {}"),
    "ts": (int, "int64"),
    "v": (str, "string"),
}


def parse_event(raw: Any, *, now: int, internal_id: str | None = None) -> Event:
    """A sent event, or InvalidEventError."""
    if not isinstance(raw, dict):
        raise InvalidEventError(f"json: cannot unmarshal {_kind(raw)} into Go value of type event.Event")
    for name, (kind, wanted) in _EVENT_FIELDS.items():
        if (value := raw.get(name)) is not None and type(value) is not kind:
            shown = f"{_kind(value)} {value}" if kind is int and isinstance(value, float) else _kind(value)
            raise InvalidEventError(
                f"json: cannot unmarshal {shown} into Go struct field raw.{name} of type {wanted}"
            )
    if not raw.get("name"):
        raise InvalidEventError("event name is empty")
    internal_id = internal_id or new_ulid(now)
    return Event(
        internal_id=internal_id,
        id=raw.get("id") or internal_id,
        name=raw["name"],
        data=raw.get("data") or {},
        user=raw.get("user") or {},
        ts=raw.get("ts") or now,
        received_at=now,
        more=_more(raw),
    )


def _more(raw: Mapping[str, Any]) -> dict[str, Any]:
    try:
        meta = sessions.resolved(raw.get("meta"))
    except ValueError as err:
        raise InvalidEventError(str(err)) from err
    return {name: value for name, value in (("v", raw.get("v")), ("meta", meta)) if value}


def _kind(value: object) -> str:
    return _JSON_KINDS.get(type(value), "null")


@dataclass(frozen=True, slots=True)
class Function:
    """A registered function: what starts it, what cancels it, where it is called."""

    id: str
    slug: str
    name: str
    app_id: str
    url: str
    config: Mapping[str, Any]

    @classmethod
    def from_registration(cls, raw: Mapping[str, Any], app_name: str) -> Function:
        """Of one entry of an SDK's registration; its first step has the URL to call."""
        slug = str(raw["id"])
        step = next(iter((raw.get("steps") or {}).values()))
        return cls(
            id=stable_id("function", slug),
            slug=slug,
            name=str(raw.get("name") or slug),
            app_id=stable_id("app", app_name),
            url=str(step["runtime"]["url"]),
            config=raw,
        )

    @property
    def triggers(self) -> list[Mapping[str, Any]]:
        """`{"event": name, "expression"?: CEL}` or `{"cron": …}` entries."""
        return list(self.config.get("triggers") or ())

    @property
    def cancels(self) -> list[Mapping[str, Any]]:
        """`{"event": name, "if"?: CEL, "timeout"?: duration}` entries."""
        return list(self.config.get("cancel") or ())

    def to_json(self) -> dict[str, Any]:
        """As the API shows it."""
        step = {"id": "step", "name": "step", "uri": self.url}
        return {
            "id": self.id,
            "fv": 1,
            "name": self.name,
            "slug": self.slug,
            "url": self.url,
            "triggers": self.triggers,
            "steps": [step if self.retries is None else {**step, "retries": self.retries}],
            **{rule: self.config[rule] for rule in _SHOWN_RULES if self.config.get(rule)},
        }

    @property
    def endpoint_method(self) -> str | None:
        """The HTTP method of a function that is an app's own endpoint, None for others."""
        return (self.config.get("endpoint") or {}).get("method")

    @property
    def retries(self) -> int | None:
        """How often a failed request is tried again, None for as often as usual."""
        step = next(iter((self.config.get("steps") or {}).values()), {})
        retries = (step.get("retries") or {}).get("attempts", self.config.get("retries"))
        return None if retries is None else min(int(retries), MAX_RETRIES)

    @property
    def max_attempts(self) -> int:
        """How often one request is tried."""
        return 1 + (DEFAULT_RETRIES if self.retries is None else self.retries)


def event_matches(pattern: str, name: str) -> bool:
    """Whether a trigger's event name, which may end with `*`, means this event."""
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
