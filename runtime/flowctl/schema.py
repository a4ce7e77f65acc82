"""Schemas: anything `pydantic.TypeAdapter` accepts, and the JSON data that records hold.

Called by `step` and `workflow` (definition), `execution` and `run` (validation).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Generic

import orjson
import pydantic
import pydantic_core
from typing_extensions import TypeVar

from flowctl.errors import DefinitionError, Issue, SchemaIssues, StateTooLargeError, ValidationError

T = TypeVar("T", default=Any)

_PLAIN = (bool, type(None))
_SHOWN = 40
MAX_STATE_BYTES = 32 * 2**20
"""Of a run's state as JSON: each commit of a step writes all of it."""


class NotJSONError(TypeError):
    """A value cannot be kept as JSON data."""


def to_json(value: object) -> Any:
    """The JSON data of a value: models become dicts by alias, dates ISO strings.

    Raises NotJSONError, naming the type and what in it has no JSON form that databases and engines keep.
    """
    if type(value) in _PLAIN:
        return value
    try:
        plain = pydantic_core.to_jsonable_python(value, by_alias=True)
    except (pydantic_core.PydanticSerializationError, ValueError) as err:
        raise NotJSONError(f"{type(value).__name__} cannot be kept as JSON data: {err}") from None
    try:
        orjson.dumps(plain)
    except TypeError:
        raise NotJSONError(f"{type(value).__name__} cannot be kept as JSON data: {_unkept(plain)}") from None
    return plain


def check_state_size(state: Mapping[str, Any]) -> None:
    """Refuse a state that is too large to be kept; raises StateTooLargeError."""
    if (size := len(orjson.dumps(state))) > MAX_STATE_BYTES:
        raise StateTooLargeError(size, MAX_STATE_BYTES)


def _unkept(value: Any, path: str = "") -> str:
    """What in JSON data is too large an integer or no text, with the dotted path to it; "" for nothing."""
    given: Any = dict(enumerate(value)) if isinstance(value, list) else value
    if isinstance(given, dict):
        inner: Mapping[Any, Any] = given
        found = (_unkept(item, f"{path}.{key}" if path else f"{key}") for key, item in inner.items())
        return next(filter(None, found), "")
    try:
        orjson.dumps(given)
    except TypeError as err:
        way_out = "; keep it as a string" if isinstance(given, int) else ""
        return f"{path or 'it'} is {_short(given)}: {err}{way_out}"
    return ""


def _short(value: Any) -> str:
    text = ascii(value) if not isinstance(value, int) else f"an integer of {value.bit_length()} bits"
    return text if len(text) < _SHOWN else f"{text[:_SHOWN]}…"


def own_copy(value: Any) -> Any:
    """A copy as deep as plain dicts and lists go, so that whoever gets it may change it."""
    if type(value) is dict:
        given: dict[Any, Any] = value
        return {key: own_copy(item) for key, item in given.items()}
    if type(value) is list:
        items: list[Any] = value
        return [own_copy(item) for item in items]
    return value


class Schema(Generic[T]):
    """A type with its validation. `parse` gives the typed value, `json_schema` what forms are made from."""

    def __init__(self, type_: Any) -> None:
        self.type = type_

    @classmethod
    def of(cls, type_: Any) -> Schema[Any] | None:
        """The schema of a type, or None for none."""
        return None if type_ is None else cls(type_)

    @cached_property
    def _adapter(self) -> pydantic.TypeAdapter[T]:
        """Made when it is first needed, for types may be defined late; raises DefinitionError."""
        try:
            adapter: pydantic.TypeAdapter[T] = pydantic.TypeAdapter(self.type)
            adapter.rebuild()
        except (pydantic.PydanticUserError, NameError, SyntaxError) as err:
            reason = str(err).partition("\n")[0]
            raise DefinitionError(
                f"The schema {self.type!r} is no type that can be validated: {reason}"
            ) from err
        return adapter

    def parse(self, data: object, *, what: str) -> T:
        """The validated value; raises ValidationError whose text starts with `what`."""
        try:
            return self._adapter.validate_python(data)
        except pydantic.ValidationError as err:
            issues = issues_of(err)
            raise ValidationError(what, issues) from SchemaIssues(issues)

    def json_schema(self) -> dict[str, Any]:
        """The JSON Schema of the accepted input; `{}` (anything) for types that have none."""
        try:
            return self._adapter.json_schema()
        except pydantic.errors.PydanticInvalidForJsonSchema:
            return {}


def issues_of(err: pydantic.ValidationError) -> list[Issue]:
    """Pydantic's findings as dotted paths and messages."""
    return [Issue(".".join(map(str, e["loc"])), e["msg"]) for e in err.errors(include_url=False)]


def parse(schema: Schema[Any] | None, data: object, *, what: str) -> Any:
    """Validated by a schema when there is one, else the plain JSON data."""
    return data if schema is None else schema.parse(data, what=what)


def parse_leniently(schema: Schema[Any] | None, data: object) -> Any:
    """The typed value where the data fits the schema, else the JSON data as it is."""
    if schema is None:
        return data
    try:
        return schema.parse(data, what="")
    except ValidationError:
        return data


def json_schema(schema: Schema[Any] | None) -> dict[str, Any]:
    """The JSON Schema of an optional schema."""
    return {} if schema is None else schema.json_schema()
