"""How a decorated function wants its arguments, and the schemas that its annotations name.

Called by `step`: `@step` makes a step from what this reads.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from typing_extensions import TypeVar

from flowctl.context import StepContext
from flowctl.errors import DefinitionError

Execute = Callable[[StepContext[Any, Any, Any, Any]], Any]


@dataclass(frozen=True, slots=True)
class Signature:
    """How a decorated function wants its arguments, and the types it names."""

    data_name: str | None
    context_name: str | None
    input: Any
    output: Any
    context_schemas: dict[str, Any]

    def adapt(self, function: Callable[..., Any]) -> Execute:
        """The function as one of the context alone."""
        data_name, context_name = self.data_name, self.context_name

        def arguments(ctx: StepContext[Any]) -> dict[str, Any]:
            given: dict[str, Any] = {data_name: ctx.input_data} if data_name else {}
            return given | ({context_name: ctx} if context_name else {})

        if is_async(function):

            @functools.wraps(function)
            async def call_async(ctx: StepContext[Any]) -> Any:
                return await function(**arguments(ctx))

            return call_async

        @functools.wraps(function)
        def call(ctx: StepContext[Any]) -> Any:
            return function(**arguments(ctx))

        return call


def read_signature(function: Callable[..., Any]) -> Signature:
    """What the parameters and annotations say; raises DefinitionError for those that cannot be told apart."""
    hints = _annotations(function)
    names = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is parameter.empty or name == "ctx"
    ]
    context_name = next((n for n in names if n == "ctx" or _is_context(hints.get(n))), None)
    data_names = [n for n in names if n != context_name]
    if len(data_names) > 1:
        raise DefinitionError(
            f"Step {function.__name__!r} takes {', '.join(data_names)}: a step takes one parameter "
            "for its data and one for its context (annotated StepContext[…] or named ctx)."
        )
    data_name = data_names[0] if data_names else None
    context_types = _context_types(hints.get(context_name)) if context_name else {}
    input_type = hints.get(data_name) if data_name else context_types.pop("input_schema", None)
    context_types.pop("input_schema", None)
    output = hints.get("return")
    return Signature(
        data_name,
        context_name,
        _known(input_type),
        None if output is NoReturn else _known(output),
        context_types,
    )


def _annotations(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except NameError as err:
        raise DefinitionError(
            f"Step {getattr(function, '__name__', function)!r}: the annotation {err.name!r} is unknown; "
            "define the type at module level, or pass the schemas to create_step."
        ) from err


def _is_context(annotation: Any) -> bool:
    return annotation is StepContext or typing.get_origin(annotation) is StepContext


def _context_types(annotation: Any) -> dict[str, Any]:
    names = ("input_schema", "resume_schema", "state_schema", "suspend_schema")
    types = dict(zip(names, typing.get_args(annotation), strict=False))
    return {name: known for name, type_ in types.items() if (known := _known(type_)) is not None}


def _known(type_: Any) -> Any:
    return (
        None
        if type_ in {Any, None, type(None), inspect.Parameter.empty} or isinstance(type_, TypeVar)
        else type_
    )


@functools.lru_cache(maxsize=1024)
def is_async(function: Callable[..., Any]) -> bool:
    """Whether a callable is an `async def`, also behind `functools.partial` or `__call__`."""
    while isinstance(function, functools.partial):
        function = function.func
    called = getattr(type(function), "__call__", None)  # noqa: B004 - the method is wanted, not whether there is one
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)
