"""Data that a JSON Schema asks for: an example of it, and questions on the terminal."""

from __future__ import annotations

import contextlib
import json
import operator
import shlex
from collections.abc import Callable, Generator, Mapping
from typing import Any, TypeVar

import typer

from flowctl_cli.console import ctrl_c_interrupts, say, say_prose, style

Schema = Mapping[str, Any]
T = TypeVar("T")
_BOUNDS: tuple[tuple[str, str, Callable[[Any, Any], bool]], ...] = (
    ("minimum", "at least", operator.ge),
    ("maximum", "at most", operator.le),
    ("exclusiveMinimum", "more than", operator.gt),
    ("exclusiveMaximum", "less than", operator.lt),
)
_EXAMPLES: dict[str, Any] = {"string": "…", "integer": 1, "number": 1.0, "boolean": True, "null": None}


def parsed_schema(text: str | None) -> Schema | None:
    """A schema in the API's form (`{"json": …}` as text), or None for none."""
    return None if text is None else json.loads(text)["json"]


def example(schema: Schema, *, root: Schema | None = None) -> Any:
    """Data that has the schema's shape: what is required, with placeholders."""
    root = schema if root is None else root
    schema = _resolved(schema, root)
    for given in ("default", "const"):
        if given in schema:
            return schema[given]
    if schema.get("enum"):
        return schema["enum"][0]
    if schema.get("examples"):
        return schema["examples"][0]
    match schema.get("type"):
        case "object":
            fields: Mapping[str, Schema] = schema.get("properties") or {}
            wanted = schema.get("required") or list(fields)[:1]
            return {name: example(field, root=root) for name, field in fields.items() if name in wanted}
        case "array":
            return [example(schema["items"], root=root)] if schema.get("items") else []
        case kind:
            return _EXAMPLES.get(str(kind), {})


def as_option(value: Any) -> str:
    """Data as it is typed after `--data` in a shell."""
    return shlex.quote(json.dumps(value, ensure_ascii=False))


def prompt(text: str, *, default: str | None = None) -> str:
    """What the user types; the default, shown in brackets, for nothing."""
    with _asking():
        return str(typer.prompt(text, default=default, show_default=bool(default), err=True))


def confirm(text: str, *, default: bool | None = False) -> bool:
    """Whether the user says yes."""
    with _asking():
        return typer.confirm(text, default=default, err=True)


@contextlib.contextmanager
def _asking() -> Generator[None]:
    with ctrl_c_interrupts():
        try:
            yield
        except typer.Abort:
            say()  # leave the question's line
            raise


def choose(question: str, things: Mapping[str, T], *, about: Mapping[str, str] | None = None) -> T:
    """The one that the user picks, by its number or its name; the only one without a question."""
    if len(things) == 1:
        return next(iter(things.values()))
    width = max(map(len, things))
    for number, name in enumerate(things, 1):
        say(f"  {number}  {name:<{width}}  {about[name] if about else ''}".rstrip())
    while True:
        picked = prompt(question, default="1")
        if picked in things:
            return things[picked]
        if picked.isdecimal() and 1 <= int(picked) <= len(things):
            return list(things.values())[int(picked) - 1]
        say(style(f"Type a number from 1 to {len(things)}, or a name.", "red"))


def ask(schema: Schema) -> Any:
    """Ask for the data field by field; optional fields may be left empty."""
    return _ask_value("", schema, schema, required=True)


def _ask_object(prefix: str, schema: Schema, root: Schema) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    required = set(schema.get("required") or ())
    for name, field in (schema.get("properties") or {}).items():
        answer = _ask_value(f"{prefix}{name}", field, root, required=name in required)
        if answer is not _LEFT_OUT:
            answers[name] = answer
    return answers


_LEFT_OUT = object()


def _ask_value(name: str, schema: Schema, root: Schema, *, required: bool) -> Any:
    schema = _resolved(schema, root)
    if schema.get("type") == "object" and schema.get("properties"):
        if name and not required and not confirm(f"Give {name}?"):
            return _LEFT_OUT
        return _ask_object(f"{name}." if name else "", schema, root)
    if schema.get("description"):
        say_prose(str(schema["description"]))
    while True:
        try:
            return _answer(name or "value", schema, required=required)
        except ValueError as err:
            say(style(str(err), "red"))


def _answer(name: str, schema: Schema, *, required: bool) -> Any:
    default = schema.get("default")
    if schema.get("type") == "boolean":
        return confirm(name, default=bool(default) if "default" in schema else None)
    choices = [_plain(choice) for choice in schema.get("enum") or ()]
    hint = "/".join(choices) if choices else _kind(schema)
    text = f"{name} ({hint}{'' if required else ', optional'})"
    shown = _plain(default) if default is not None else None if required else ""
    answer = prompt(text, default=shown)
    if not answer and not required:
        return _LEFT_OUT
    if choices and answer not in choices:
        raise ValueError(f"Choose one of {', '.join(choices)}.")
    return _read(answer, schema)


def _read(answer: str, schema: Schema) -> Any:
    kinds = _kinds(schema)
    if "string" in kinds or ("enum" in schema and answer in schema["enum"]):
        return answer
    unfit = ValueError(f"That is no {_kind(schema)}; one is {json.dumps(example(schema))}.")
    try:
        value = json.loads(answer)
    except json.JSONDecodeError:
        raise unfit from None
    if kinds and _type_of(value) not in kinds and not (_type_of(value) == "integer" and "number" in kinds):
        raise unfit
    return _within_bounds(value, schema)


def _within_bounds(value: Any, schema: Schema) -> Any:
    for key, meaning, holds in _BOUNDS:
        if key in schema and _type_of(value) in {"integer", "number"} and not holds(value, schema[key]):
            raise ValueError(f"It must be {meaning} {_plain(schema[key])}.")
    return value


def _kinds(schema: Schema) -> set[str]:
    options = [schema, *(schema.get("anyOf") or ())]
    return {str(option["type"]) for option in options if option.get("type")} - {"null"}


def _kind(schema: Schema) -> str:
    names = {"array": "JSON array", "object": "JSON object"}
    return " or ".join(names.get(kind, kind) for kind in sorted(_kinds(schema))) or "JSON"


def _type_of(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names.get(type(value), "null")


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _resolved(schema: Schema, root: Schema) -> Schema:
    """Without references, and without the `null` of an optional type."""
    if "$ref" in schema:
        target: Any = root
        for part in str(schema["$ref"]).removeprefix("#/").split("/"):
            target = target[part]
        return _resolved({**target, **{k: v for k, v in schema.items() if k != "$ref"}}, root)
    options = [option for option in schema.get("anyOf") or () if option.get("type") != "null"]
    if len(options) == 1:
        return _resolved({**options[0], **{k: v for k, v in schema.items() if k != "anyOf"}}, root)
    return schema
