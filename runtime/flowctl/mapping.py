"""Mappings: the steps that `.map` puts between two others."""

from __future__ import annotations

import inspect
import json
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flowctl import graph
from flowctl.context import StepContext
from flowctl.errors import DefinitionError
from flowctl.schema import Schema, to_json
from flowctl.step import Schemas, Step

_PLACEHOLDER = re.compile(r"\$\{([^}]*)\}")
_SCOPES = ("inputData", "initData", "state", "requestContext", "stepResults")


def step_for(source: Callable[[StepContext[Any]], Any] | Mapping[str, Any], *, id: str) -> Step[Any, Any]:
    """The step that carries out a mapping."""
    if isinstance(source, Mapping):
        for key, spec in source.items():
            _check(key, spec)
        return Step(id, _by_keys(source), component="MAPPING")
    if not callable(source):
        raise DefinitionError(f".map takes a function of the context or a mapping, not {source!r}.")
    return Step(id, _async(source), Schemas(output=Schema.of(_return_type(source))), component="MAPPING")


def map_variable(
    *,
    step: Step[Any, Any] | str | Sequence[Step[Any, Any] | str] | None = None,
    init_data: Any = None,
    path: str = ".",
) -> dict[str, Any]:
    """A source for `.map`: a value of a step's output (of the first listed that has one) or of the input.

    `path` is dotted; `"."` is the whole. `init_data` is True or the workflow. Raises DefinitionError unless
    one of the two is given.
    """
    if (step is None) == (init_data is None):
        raise DefinitionError("map_variable takes either step= or init_data=.")
    return {"path": path} | ({"init_data": init_data} if step is None else {"step": step})


def describe(source: Callable[..., Any] | Mapping[str, Any]) -> str:
    """The mapping's source, for people who look at the graph."""
    if not isinstance(source, Mapping):
        return graph.source_of(source)
    return repr({key: {name: _shown(value) for name, value in spec.items()} for key, spec in source.items()})


def _async(function: Callable[[StepContext[Any]], Any]) -> Callable[[StepContext[Any]], Any]:
    async def mapped(ctx: StepContext[Any]) -> Any:
        value = function(ctx)
        return await value if inspect.isawaitable(value) else value

    return mapped


def _return_type(function: Callable[..., Any]) -> Any:
    try:
        hint = typing.get_type_hints(function).get("return")
    except (NameError, TypeError):
        return None
    return hint if inspect.isclass(hint) and hint is not type(None) else None


def _by_keys(source: Mapping[str, Mapping[str, Any]]) -> Callable[[StepContext[Any]], Any]:
    async def mapped(ctx: StepContext[Any]) -> dict[str, Any]:
        return {key: await _resolve(ctx, spec) for key, spec in source.items()}

    return mapped


async def _resolve(ctx: StepContext[Any], spec: Mapping[str, Any]) -> Any:
    match spec:
        case {"value": value}:
            return value
        case {"fn": function}:
            value = function(ctx)
            return await value if inspect.isawaitable(value) else value
        case {"template": template}:
            return _PLACEHOLDER.sub(lambda found: _text(_scoped(ctx, found[1])), template)
        case {"request_context_path": key}:
            return ctx.request_context.get(key)
        case {"init_data": _}:
            return _descend(to_json(ctx.get_init_data()), spec.get("path", ""), "initData")
        case _:
            return _from_step(ctx, spec)


def _from_step(ctx: StepContext[Any], spec: Mapping[str, Any]) -> Any:
    steps = spec["step"] if isinstance(spec["step"], list | tuple) else [spec["step"]]
    ids: list[str] = [step if isinstance(step, str) else step.id for step in steps]
    for id in ids:
        output = ctx.get_step_result(id)
        if output is not None:
            return _descend(output, spec.get("path", ""), f"step {id}")
    return _descend(None, spec.get("path", ""), f"step {', '.join(ids)}")


def _descend(value: Any, path: str, where: str) -> Any:
    if path in {"", "."}:
        return value
    for part in path.split("."):
        if isinstance(value, list) and part.isdigit():
            items: list[Any] = value
            value = items[int(part)] if int(part) < len(items) else None
        elif isinstance(value, Mapping):
            value = value.get(part)
        else:
            raise ValueError(f"Invalid path {path} in {where}")
    return value


def _scoped(ctx: StepContext[Any], path: str) -> Any:
    scope, _, rest = path.partition(".")
    match scope:
        case "inputData":
            return _descend(to_json(ctx.input_data), rest, scope)
        case "initData":
            return _descend(to_json(ctx.get_init_data()), rest, scope)
        case "state":
            return _descend(to_json(ctx.state), rest, scope)
        case "requestContext":
            return _descend(ctx.request_context.to_json(), rest, scope)
        case _:
            return _step_output(ctx, rest)


def _step_output(ctx: StepContext[Any], path: str) -> Any:
    id, _, rest = path.partition(".")
    output = ctx.get_step_result(id)
    if output is None:
        raise ValueError(f"Template reads stepResults.{id}, but no step {id!r} has succeeded")
    return _descend(output, rest, f"stepResults.{id}")


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool | dict | list):
        return json.dumps(value)
    return str(value)


def _check(key: str, spec: Any) -> None:
    forms = {"value", "fn", "template", "request_context_path", "init_data", "step"}
    if not isinstance(spec, Mapping) or not forms & set(spec):
        raise DefinitionError(f".map key {key!r} needs one of {', '.join(sorted(forms))}; got {spec!r}.")
    if "template" in spec:
        for found in _PLACEHOLDER.finditer(spec["template"]):
            _check_placeholder(found[1])


def _check_placeholder(path: str) -> None:
    if not path or path != path.strip():
        raise DefinitionError(f"Template placeholder ${{{path}}} is empty or whitespace-padded.")
    scope, _, rest = path.partition(".")
    if scope not in _SCOPES:
        raise DefinitionError(
            f'Template placeholder ${{{path}}}: unknown namespace "{scope}"; use {", ".join(_SCOPES)}.'
        )
    if scope == "stepResults" and not rest:
        raise DefinitionError(f"Template placeholder ${{{path}}}: write stepResults.<stepId>.")


def _shown(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_shown(v) for v in value]
    if callable(value):
        return graph.source_of(value)
    return getattr(value, "id", value)
