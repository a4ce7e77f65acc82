"""Steps: what a user defines (`Step`) and what its code is given (`StepContext`).

`create_step` takes the schemas by name, `@step` reads them from annotations. The executor
(`execution.steps`) builds the context and interprets the signals that `suspend` and `bail` raise.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import threading
import typing
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol, overload

from typing_extensions import TypeVar

from flowctl.errors import DefinitionError, FlowctlError
from flowctl.request_context import RequestContext
from flowctl.schema import Schema

if TYPE_CHECKING:
    from flowctl.app import App

In = TypeVar("In", default=Any)
Out = TypeVar("Out", default=Any)
Resume = TypeVar("Resume", default=Any)
State = TypeVar("State", default=Any)
Suspend = TypeVar("Suspend", default=Any)


class SuspendSignal(BaseException):
    """Leaves the step's code where it awaited `ctx.suspend`."""

    def __init__(self, payload: Any, labels: Sequence[str]) -> None:
        super().__init__("the step was suspended")
        self.payload, self.labels = payload, tuple(labels)


class BailSignal(BaseException):
    """Leaves the step's code where it awaited `ctx.bail`."""

    def __init__(self, result: Any) -> None:
        super().__init__("the run was ended early")
        self.result = result


class _Leave(Coroutine[Any, Any, NoReturn]):
    """What `ctx.suspend(…)` and `ctx.bail(…)` return: awaiting it raises the signal."""

    def __init__(self, name: str, signal: BaseException, open_calls: dict[int, str]) -> None:
        self._signal, self._open_calls = signal, open_calls
        open_calls[id(self)] = name

    def send(self, value: Any, /) -> Any:  # noqa: ARG002 - the coroutine protocol passes a value
        self._open_calls.pop(id(self), None)
        raise self._signal

    def throw(self, *_: Any) -> Any:
        raise self._signal

    def close(self) -> None:
        """Nothing is held open."""

    def __await__(self) -> Generator[Any, Any, NoReturn]:
        self._open_calls.pop(id(self), None)
        raise self._signal
        yield  # makes this a generator, as awaiting requires


class AbortSignal:
    """Tells a step that its run was canceled or aborted; usable from any loop and from threads."""

    def __init__(self) -> None:
        self._set = threading.Event()
        self._lock = threading.Lock()
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    def is_set(self) -> bool:
        """Whether the run was canceled or aborted."""
        return self._set.is_set()

    async def wait(self) -> None:
        """Return once the run is canceled or aborted."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        with self._lock:
            if self._set.is_set():
                return
            self._waiters.append((loop, future))
        try:
            await future
        finally:
            with self._lock:
                self._waiters = [w for w in self._waiters if w[1] is not future]

    def set(self) -> None:
        """Fire the signal."""
        with self._lock:
            self._set.set()
            waiters, self._waiters = self._waiters, []
        for loop, future in waiters:
            loop.call_soon_threadsafe(lambda f=future: None if f.done() else f.set_result(None))


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """Which engine runs this step: "local" (this process) or "inngest"."""

    name: str


class Writer(Protocol):
    """Where a step puts output for those who watch the run."""

    def write(self, value: Any) -> None:
        """Emit a `workflow-step-output` event with this JSON value."""

    def custom(self, event: Mapping[str, Any]) -> None:
        """Emit this object as an event of its own; it needs a `type`."""


class StepContext(Generic[In, Resume, State, Suspend]):
    """What a step, a condition or a mapping is given about its run."""

    def __init__(self, facts: ContextFacts) -> None:
        self._facts = facts
        self.input_data: In = facts.input_data
        self.resume_data: Resume | None = facts.resume_data
        self.suspend_data: Suspend | None = facts.suspend_data
        self.state: State = facts.state
        self.request_context: RequestContext = facts.request_context
        self.writer: Writer = facts.writer
        self.run_id: str = facts.run_id
        self.workflow_id: str = facts.workflow_id
        self.resource_id: str | None = facts.resource_id
        self.retry_count: int = facts.retry_count
        self.iteration_count: int = facts.iteration_count
        self.abort_signal: AbortSignal = facts.abort_signal
        self.logger: logging.Logger | logging.LoggerAdapter[Any] = facts.logger
        self.engine: EngineInfo = facts.engine
        self.idempotency_key: str = facts.idempotency_key

    @property
    def app(self) -> App | None:
        """The app the workflow is registered with, if any."""
        return self._facts.app

    def get_init_data(self) -> Any:
        """The workflow's validated input."""
        return self._facts.init_data()

    def get_step_result(self, step: Step[Any, Any] | str) -> Any:
        """The output (JSON data) of a step that succeeded, or None."""
        return self._facts.step_result(step if isinstance(step, str) else step.id)

    def set_state(self, state: Any) -> None:
        """Merge these keys into the run's state when the step ends well; raises on a wrong shape."""
        self._facts.set_state(state)

    def abort(self) -> None:
        """Cancel the run: the signal fires now, and nothing runs after this step."""
        self._facts.aborted.append(True)
        self.abort_signal.set()

    def suspend(
        self, payload: Suspend | dict[str, Any] | None = None, resume_label: str | Sequence[str] | None = None
    ) -> Coroutine[Any, Any, NoReturn]:
        """Stop here until the run is resumed: `await ctx.suspend(…)` never returns.

        The payload (validated by `suspend_schema`) tells whoever resumes what is asked; a label
        lets them name this place.
        """
        self._check_async("suspend")
        labels = [resume_label] if isinstance(resume_label, str) else list(resume_label or [])
        return _Leave("suspend", SuspendSignal(payload, labels), self._facts.open_calls)

    def bail(self, result: Any = None) -> Coroutine[Any, Any, NoReturn]:
        """End the workflow now, with success and this result: `await ctx.bail(…)` never returns."""
        self._check_async("bail")
        return _Leave("bail", BailSignal(result), self._facts.open_calls)

    def _check_async(self, name: str) -> None:
        if not self._facts.may_leave:
            raise FlowctlError(
                f"ctx.{name}() works only in a step that is an `async def`: "
                f"make it one and `await ctx.{name}(…)`."
            )


@dataclass(slots=True)
class ContextFacts:
    """What a `StepContext` is built from; made by the executor."""

    input_data: Any
    resume_data: Any
    suspend_data: Any
    state: Any
    request_context: RequestContext
    writer: Writer
    run_id: str
    workflow_id: str
    resource_id: str | None
    retry_count: int
    iteration_count: int
    abort_signal: AbortSignal
    logger: logging.Logger | logging.LoggerAdapter[Any]
    engine: EngineInfo
    idempotency_key: str
    app: App | None
    init_data: Callable[[], Any]
    step_result: Callable[[str], Any]
    set_state: Callable[[Any], None]
    may_leave: bool
    aborted: list[bool] = field(default_factory=list[bool])
    open_calls: dict[int, str] = field(default_factory=dict[int, str])


@dataclass(frozen=True, slots=True)
class Schemas:
    """The schemas of a step or a workflow; None where none was given."""

    input: Schema[Any] | None = None
    output: Schema[Any] | None = None
    resume: Schema[Any] | None = None
    suspend: Schema[Any] | None = None
    state: Schema[Any] | None = None
    request_context: Schema[Any] | None = None


Execute = Callable[[StepContext[Any, Any, Any, Any]], Any]


@dataclass(frozen=True, slots=True, eq=False)
class Step(Generic[In, Out]):
    """One unit of work of a workflow. Made by `create_step`, `@step` or `clone_step`."""

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
        return _is_async(self.execute)

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
    """
    _check_id("step", id)
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
    """The same step under another id."""
    _check_id("step", id)
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
    annotated `StepContext[…]` or named `ctx` is the context, another one the data.
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
    signature = _read_signature(function)
    given = {"input_schema": signature.input, "output_schema": signature.output} | signature.context_schemas
    given |= {key: value for key, value in options.items() if value is not None}
    description = given.pop("description", None) or inspect.getdoc(function)
    return create_step(
        id=id or getattr(function, "__name__", "step"),
        execute=signature.adapt(function),
        description=description,
        **given,
    )


@dataclass(frozen=True, slots=True)
class _Signature:
    """How a decorated function wants its arguments, and the types it names."""

    data_name: str | None
    context_name: str | None
    input: Any
    output: Any
    context_schemas: dict[str, Any]

    def adapt(self, function: Callable[..., Any]) -> Execute:
        data_name, context_name = self.data_name, self.context_name

        def arguments(ctx: StepContext[Any]) -> dict[str, Any]:
            given: dict[str, Any] = {data_name: ctx.input_data} if data_name else {}
            return given | ({context_name: ctx} if context_name else {})

        if _is_async(function):

            @functools.wraps(function)
            async def call_async(ctx: StepContext[Any]) -> Any:
                return await function(**arguments(ctx))

            return call_async

        @functools.wraps(function)
        def call(ctx: StepContext[Any]) -> Any:
            return function(**arguments(ctx))

        return call


def _read_signature(function: Callable[..., Any]) -> _Signature:
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
    return _Signature(
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


def _check_id(kind: str, id: str) -> None:
    if not isinstance(id, str) or not id.strip():  # pyright: ignore[reportUnnecessaryIsInstance] - users without a type checker
        raise DefinitionError(f"A {kind} needs an id, a string that is not empty; got {id!r}.")


def _is_async(function: Callable[..., Any]) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    called = getattr(type(function), "__call__", None)  # noqa: B004 - the method is wanted, not whether there is one
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)
