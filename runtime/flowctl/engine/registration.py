"""What an SDK's registration must be, as the real service has it; a fault names function and field. Pure.

Called by `apps`. The models only check: what is kept is what was sent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

import orjson
from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from flowctl.engine.cron import InvalidCronError, next_time
from flowctl.engine.expressions import InvalidExpressionError, compiled
from flowctl.engine.flow_control import DAY_MS
from flowctl.engine.protocol import duration_ms

MAX_TRIGGERS, MAX_CANCELS, MAX_CONCURRENCY = 10, 5, 2
MAX_NAME = 255
"""Characters of a cron schedule, and of an event's name."""
BATCH_SIZES = 2, 100
SCHEMES = frozenset({"http", "https", "ws", "wss"})
SHOWN_VALUE = 80


@dataclass(frozen=True, slots=True)
class Fault:
    """A `field` of a function (None: of the app) that has a `value` which it must not have."""

    function: str | None
    field: str
    value: Any
    message: str

    def __str__(self) -> str:
        where = self.field if self.function is None else f"function {self.function!r}: {self.field}"
        shown = "" if self.value is None else f" is {_shown(self.value)}, but"
        return f"{where}{shown} {self.message}"


class RegistrationError(ValueError):
    """What was sent is no registration; nothing of it was taken."""

    def __init__(self, message: str, faults: Sequence[Fault] = ()) -> None:
        super().__init__(message)
        self.faults = [asdict(fault) for fault in faults]


def app_name(raw: Any) -> str:
    """The app's name in a registration without faults; raises RegistrationError, which lists them all."""
    if not isinstance(raw, dict) or not (raw.get("appName") or raw.get("appname")):
        raise RegistrationError("App ID required")
    try:
        return _App.model_validate(raw).name
    except ValidationError as err:
        faults = [_fault(raw, details) for details in err.errors()]
        count = f"{len(faults)} faults: " if len(faults) > 1 else ""
        message = f"The registration is refused. {count}{'; '.join(map(str, faults))}."
        raise RegistrationError(message, faults) from err


def _span(least: int, most: int | None, words: str) -> AfterValidator:
    def check(text: str) -> str:
        try:
            is_within = least <= duration_ms(text) and (most is None or duration_ms(text) <= most)
        except ValueError:
            is_within = False
        if not is_within:
            raise ValueError(f"must be a duration {words}")
        return text

    return AfterValidator(check)


def _none_if_empty(value: Any) -> Any:
    """Some SDKs send an empty text for nothing."""
    return None if value == "" else value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _expression(text: str) -> str:
    try:
        compiled(text)
    except InvalidExpressionError as err:
        raise ValueError("must be a CEL expression such as 'event.data.id'") from err
    return text


def _cron(text: str) -> str:
    try:
        next_time(text, after=0)
    except InvalidCronError as err:
        raise ValueError(
            "must be a cron schedule such as '0 9 * * *' or 'TZ=Europe/Paris 0 9 * * *'"
        ) from err
    return text


def _url(text: str) -> str:
    try:
        is_one = urlsplit(text).scheme in SCHEMES and bool(urlsplit(text).hostname)
    except ValueError:
        is_one = False
    if not is_one:
        raise ValueError(f"must be a URL with one of the schemes {', '.join(sorted(SCHEMES))}")
    return text


_Optional = BeforeValidator(_none_if_empty)
_Duration = Annotated[str, _span(1, None, "above zero, such as '30s' or '1h30m'")]
_Expression = Annotated[str, AfterValidator(_expression)]
_Key = Annotated[_Expression | None, _Optional]
_Timeout = Annotated[_Duration | None, _Optional]
_Name = Annotated[str, Field(min_length=1, max_length=MAX_NAME)]


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, validate_default=False)


class _Trigger(_Model):
    event: Annotated[_Name | None, _Optional] = None
    expression: _Key = None
    cron: Annotated[Annotated[_Name, AfterValidator(_cron)] | None, _Optional] = None
    jitter: Annotated[Annotated[str, _span(1_000, 300_000, "from '1s' to '5m'")] | None, _Optional] = None

    @model_validator(mode="after")
    def has_one(self) -> Self:
        if (self.event is None) == (self.cron is None):
            raise ValueError("must have an event or a cron schedule, and not both")
        return self


class _Cancel(_Model):
    event: _Name
    condition: _Key = Field(default=None, alias="if")
    timeout: _Timeout = None


class _StepLimit(_Model):
    limit: Annotated[int, Field(ge=0)]
    key: _Key = None
    scope: Annotated[Literal["fn", "env", "account"] | None, _Optional, BeforeValidator(_lower)] = None

    @model_validator(mode="after")
    def has_key(self) -> Self:
        if self.scope in {"env", "account"} and self.key is None:
            raise ValueError(f"must have a key, since its scope is {self.scope!r}")
        return self


class _RunLimit(_Model):
    limit: Annotated[int, Field(ge=1)]
    key: _Key = None
    scope: Annotated[Literal["fn"] | None, _Optional] = None


def _form(value: Any) -> str | None:
    """Which of the forms a concurrency has."""
    match value:
        case bool():
            return None
        case int():
            return "<number>"
        case list():
            return "<list>"
        case dict() if "limit" in value:
            return "<limit>"
        case dict():
            return "<levels>"
        case _:
            return None


_Limit = Annotated[
    Annotated[int, Field(ge=0), Tag("<number>")] | Annotated[_StepLimit, Tag("<limit>")], Discriminator(_form)
]
_Limits = Annotated[list[_Limit], Field(max_length=MAX_CONCURRENCY)]


class _Levels(_Model):
    fn: Annotated[list[_RunLimit], Field(max_length=1)] | None = None
    step: _Limits | None = None


_Concurrency = Annotated[
    Annotated[int, Field(ge=0), Tag("<number>")]
    | Annotated[_StepLimit, Tag("<limit>")]
    | Annotated[_Limits, Tag("<list>")]
    | Annotated[_Levels, Tag("<levels>")],
    Discriminator(_form),
]


class _Throttle(_Model):
    limit: Annotated[int, Field(ge=1)]
    period: _Duration
    burst: Annotated[int, Field(ge=0)] | None = None
    key: _Key = None


class _RateLimit(_Model):
    limit: Annotated[int, Field(ge=1)]
    period: Annotated[str, _span(1, DAY_MS, "above zero, '24h' at most")]
    key: _Key = None


class _Debounce(_Model):
    period: Annotated[str, _span(1_000, 7 * DAY_MS, "from '1s' to '7d'")]
    timeout: _Timeout = None
    key: _Key = None


class _Batch(_Model):
    max_size: Annotated[int, Field(alias="maxSize", ge=BATCH_SIZES[0], le=BATCH_SIZES[1])]
    timeout: Annotated[Annotated[str, _span(1_000, None, "of '1s' or more")] | None, _Optional] = None
    key: _Key = None
    condition: _Key = Field(default=None, alias="if")


class _Singleton(_Model):
    mode: Annotated[Literal["skip", "cancel"] | None, _Optional, BeforeValidator(_lower)] = None
    key: _Key = None


class _Priority(_Model):
    run: _Key = None


class _Timeouts(_Model):
    start: _Timeout = None
    finish: _Timeout = None


class _Retries(_Model):
    attempts: Annotated[int, Field(ge=0)]


class _Runtime(_Model):
    url: Annotated[str, AfterValidator(_url)]


class _Step(_Model):
    runtime: _Runtime
    retries: _Retries | None = None


class _Function(_Model):
    id: Annotated[str, Field(min_length=1)]
    name: str | None = None
    triggers: Annotated[list[_Trigger], Field(max_length=MAX_TRIGGERS)] | None = None
    cancel: Annotated[list[_Cancel], Field(max_length=MAX_CANCELS)] | None = None
    steps: Annotated[dict[str, _Step], Field(min_length=1, max_length=1)]
    concurrency: _Concurrency | None = None
    throttle: _Throttle | None = None
    rate_limit: _RateLimit | None = Field(default=None, alias="rateLimit")
    idempotency: _Key = None
    debounce: _Debounce | None = None
    batch: _Batch | None = Field(default=None, alias="batchEvents")
    singleton: _Singleton | None = None
    priority: _Priority | None = None
    timeouts: _Timeouts | None = None
    retries: Annotated[int, Field(ge=0)] | None = None

    @field_validator("triggers", mode="after")
    @classmethod
    def are_different(cls, triggers: list[_Trigger] | None) -> list[_Trigger] | None:
        seen = Counter((trigger.event or trigger.cron, trigger.expression) for trigger in triggers or ())
        if twice := [name for (name, _), count in seen.items() if count > 1]:
            raise ValueError(f"must differ; {twice[0]!r} is there twice")
        return triggers

    @model_validator(mode="after")
    def combines(self) -> Self:
        others = {
            "cancel": self.cancel,
            "debounce": self.debounce,
            "singleton": self.singleton,
            "priority": self.priority and self.priority.run,
        }
        if self.batch and (given := [name for name, rule in others.items() if rule]):
            raise ValueError(f"must not have batchEvents together with {', '.join(given)}")
        return self


class _App(_Model):
    name: str = Field(validation_alias=AliasChoices("appName", "appname"))
    url: str | None = None
    sdk: str | None = None
    framework: str | None = None
    functions: list[_Function] | None = None

    @field_validator("functions", mode="after")
    @classmethod
    def are_different(cls, functions: list[_Function] | None) -> list[_Function] | None:
        seen = Counter(function.id for function in functions or ())
        if twice := [id for id, count in seen.items() if count > 1]:
            raise ValueError(f"must have ids of their own; {', '.join(map(repr, twice))} is there twice")
        return functions


_KINDS = {
    "missing": "is missing",
    "int_type": "must be a whole number",
    "string_type": "must be a text",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "union_tag_not_found": "must be a whole number, an object with a limit, or a list of those",
    "union_tag_invalid": "must be a whole number or an object with a limit",
    "greater_than_equal": "must be {ge} or more",
    "less_than_equal": "must be {le} or less",
    "literal_error": "must be {expected}",
    "too_long": "may have {max_length} at most",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
    "string_too_long": "may have {max_length} characters at most",
    "value_error": "{error}",
}


def _fault(raw: Mapping[str, Any], details: ErrorDetails) -> Fault:
    place = [part for part in details["loc"] if not str(part).startswith("<")]
    message = _KINDS.get(details["type"], details["msg"]).format(**details.get("ctx", {}))
    value = None if details["type"] == "missing" else details["input"]
    match place:
        case ["functions", int(index), *inner]:
            return Fault(_id_of(raw["functions"][index], index), _path(inner), value, message)
        case _:
            return Fault(None, _path(place), value, message)


def _id_of(function: Any, index: int) -> str:
    id = function.get("id") if isinstance(function, Mapping) else None
    return id if isinstance(id, str) and id else f"#{index}"


def _path(parts: Iterable[str | int]) -> str:
    """`concurrency[0].limit`; the function itself is `it`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return text.lstrip(".") or "it"


def _shown(value: Any) -> str:
    """A value as JSON: short enough for a line."""
    text = orjson.dumps(value, default=str).decode()
    return text if len(text) <= SHOWN_VALUE else text[:SHOWN_VALUE] + "…"
