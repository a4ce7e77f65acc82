"""Steps: what a user defines. `create_step` takes the schemas by name, `@step` reads them from annotations.

The executor (`execution.steps`) runs a step's code with a `StepContext`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, overload

from typing_extensions import TypeVar

from flowctl.context import Resume, State, StepContext, Suspend
from flowctl.errors import DefinitionError
from flowctl.schema import Schema
from flowctl.signature import Execute, is_async, read_signature

In = TypeVar("In", default=Any)
Out = TypeVar("Out", default=Any)


@dataclass(frozen=True, slots=True)
class Schemas:
    """The schemas of a step or a workflow; None where none was given."""

    input: Schema[Any] | None = None
    output: Schema[Any] | None = None
    resume: Schema[Any] | None = None
    suspend: Schema[Any] | None = None
    state: Schema[Any] | None = None
    request_context: Schema[Any] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Step(Generic[In, Out]):
    """One unit of work of a workflow. Made by `create_step`, `@step` or `clone_step`; never changed.

    It may stand in many workflows, and in one again under another id (`clone_step`).
    """

    id: str
    execute: Execute
    schemas: Schemas = Schemas()
    retries: int | None = None
    description: str | None = None
    metadata: Mapping[str, Any] | None = None
    component: str | None = None

    @property
    def is_async(self) -> bool:
        """Whether the code is an `async def` (a plain def runs in a thread)."""
        return is_async(self.execute)

    @property
    def is_workflow(self) -> bool:
        """Always False: workflows used as steps answer True."""
        return False


def create_step(
    *,
    id: str,
    execute: Callable[
        [StepContext[In, Resume, State, Suspend]], Awaitable[Out | dict[str, Any]] | Out | dict[str, Any]
    ],
    input_schema: type[In] | Any = None,
    output_schema: type[Out] | Any = None,
    resume_schema: type[Resume] | Any = None,
    suspend_schema: type[Suspend] | Any = None,
    state_schema: type[State] | Any = None,
    request_context_schema: Any = None,
    retries: int | None = None,
    description: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Step[In, Out]:
    """A step from a function of its context.

    Args:
        id: its name in the workflow, unique there.
        execute: `async def (ctx) -> output`; a plain `def` runs in a thread.
        input_schema, output_schema, resume_schema, suspend_schema, state_schema,
            request_context_schema: any type pydantic can validate.
        retries: extra tries after a failure (the workflow's `retry_config` otherwise).
        description: one sentence for people.
        metadata: JSON data shown in the graph.

    Input and output are validated each time; data that does not fit fails the step. Raises DefinitionError
    for an id that is empty or has `/`, `[` or `]` in it, or negative retries; a schema that is no type is
    refused once it is first used.
    """
    check_id("step", id)
    if retries is not None and retries < 0:
        raise DefinitionError(f"Step {id!r}: retries must be 0 or more, not {retries}.")
    if not callable(execute):
        raise DefinitionError(f"Step {id!r}: execute must be a function of the context, not {execute!r}.")
    schemas = Schemas(
        input=Schema.of(input_schema),
        output=Schema.of(output_schema),
        resume=Schema.of(resume_schema),
        suspend=Schema.of(suspend_schema),
        state=Schema.of(state_schema),
        request_context=Schema.of(request_context_schema),
    )
    return Step(id, execute, schemas, retries, description, metadata)


def clone_step(step: Step[In, Out], *, id: str) -> Step[In, Out]:
    """The same step under another id; raises DefinitionError for one that cannot be."""
    check_id("step", id)
    return replace(step, id=id)


@overload
def step(function: Callable[[StepContext[In, Any, Any, Any]], Awaitable[Out]], /) -> Step[In, Out]: ...
@overload
def step(function: Callable[[In, StepContext[Any, Any, Any, Any]], Awaitable[Out]], /) -> Step[In, Out]: ...
@overload
def step(function: Callable[[In], Awaitable[Out]], /) -> Step[In, Out]: ...
@overload
def step(function: Callable[[StepContext[In, Any, Any, Any]], Out], /) -> Step[In, Out]: ...
@overload
def step(function: Callable[[In, StepContext[Any, Any, Any, Any]], Out], /) -> Step[In, Out]: ...
@overload
def step(function: Callable[[In], Out], /) -> Step[In, Out]: ...
@overload
def step(
    *,
    id: str | None = None,
    resume_schema: Any = None,
    suspend_schema: Any = None,
    state_schema: Any = None,
    request_context_schema: Any = None,
    retries: int | None = None,
    description: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> StepDecorator: ...
def step(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """A step from an annotated function: schemas from its annotations, id from its name.

    The function takes the data, the data and the context, or the context alone: a parameter
    annotated `StepContext[…]` or named `ctx` is the context, another one the data. Options are those of
    `create_step`; the docstring is the description.

        @step(retries=2)
        async def increment(data: Counter) -> Counter:
            return Counter(value=data.value + 1)

    Raises DefinitionError for a function that takes neither, or an annotation that is no type.
    """
    if function is None:
        return functools.partial(_from_function, **options)
    return _from_function(function)


class StepDecorator(Protocol):
    """What `@step(…)` with options returns."""

    @overload
    def __call__(
        self, function: Callable[[StepContext[In, Any, Any, Any]], Awaitable[Out]], /
    ) -> Step[In, Out]: ...
    @overload
    def __call__(
        self, function: Callable[[In, StepContext[Any, Any, Any, Any]], Awaitable[Out]], /
    ) -> Step[In, Out]: ...
    @overload
    def __call__(self, function: Callable[[In], Awaitable[Out]], /) -> Step[In, Out]: ...
    @overload
    def __call__(self, function: Callable[[StepContext[In, Any, Any, Any]], Out], /) -> Step[In, Out]: ...
    @overload
    def __call__(
        self, function: Callable[[In, StepContext[Any, Any, Any, Any]], Out], /
    ) -> Step[In, Out]: ...
    @overload
    def __call__(self, function: Callable[[In], Out], /) -> Step[In, Out]: ...
    def __call__(self, function: Callable[..., Any], /) -> Any:
        """Turn the function into a step."""


def _from_function(
    function: Callable[..., Any], /, *, id: str | None = None, **options: Any
) -> Step[Any, Any]:
    signature = read_signature(function)
    given = {"input_schema": signature.input, "output_schema": signature.output} | signature.context_schemas
    given |= {key: value for key, value in options.items() if value is not None}
    description = given.pop("description", None) or inspect.getdoc(function)
    return create_step(
        id=id or getattr(function, "__name__", "step"),
        execute=signature.adapt(function),
        description=description,
        **given,
    )


def check_id(kind: str, id: str) -> None:
    """Refuse an id that is empty, or that a path of steps could not be told from."""
    if not isinstance(id, str) or not id.strip():  # pyright: ignore[reportUnnecessaryIsInstance] - users without a type checker
        raise DefinitionError(f"A {kind} needs an id, a string that is not empty; got {id!r}.")
    if any(mark in id for mark in "/[]"):
        raise DefinitionError(
            f"The {kind} id {id!r} must not have any of / [ ] in it: they separate the parts of paths."
        )
