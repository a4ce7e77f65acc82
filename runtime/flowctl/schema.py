"""Schemas: anything `pydantic.TypeAdapter` accepts, and the JSON data that records hold.

Called by `step` and `workflow` (definition), `execution` and `run` (validation).
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Generic

import pydantic
import pydantic_core
from typing_extensions import TypeVar

from flowctl.errors import Issue, SchemaIssues, ValidationError

T = TypeVar("T", default=Any)

_PLAIN = (str, int, bool, type(None))


class NotJSONError(TypeError):
    """A value cannot be kept as JSON data."""


def to_json(value: object) -> Any:
    """The JSON data of a value: models become dicts by alias, dates ISO strings.

    Raises NotJSONError, naming the type, when there is no JSON form.
    """
    if type(value) in _PLAIN:
        return value
    try:
        return pydantic_core.to_jsonable_python(value, by_alias=True)
    except (pydantic_core.PydanticSerializationError, ValueError) as err:
        raise NotJSONError(f"{type(value).__name__} cannot be kept as JSON data: {err}") from None


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
        return pydantic.TypeAdapter(self.type)

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
