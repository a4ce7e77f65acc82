"""What a step's code is given about its run (`StepContext`), and the signals by which it leaves.

Built by the executor (`execution.steps`), which also interprets what `suspend` and `bail` raise.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol

from typing_extensions import TypeVar

from flowctl.errors import FlowctlError
from flowctl.request_context import RequestContext

if TYPE_CHECKING:
    from flowctl.app import App
    from flowctl.step import Step

In = TypeVar("In", default=Any)
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
    """What a step, a condition or a mapping is given about its run.

    Attributes:
        input_data: the step's input as its schema's type; in conditions and maps the output before them.
        resume_data: what `resume` was given, in the step that it resumes; None elsewhere.
        suspend_data: what this step had asked when it was suspended; None before that.
        state: the run's state as it was when the step began. Change it with `set_state`.
        request_context: values beside the data; what a step changes is seen by later steps once it has ended.
        writer: puts output into the run's stream; refused in conditions.
        run_id, workflow_id, resource_id: whose step this is; the workflow is the innermost one.
        retry_count: 0 in the first try of a step, -1 in conditions and dynamic values.
        iteration_count: of a loop, from 1, in its step and its condition; 0 elsewhere.
        abort_signal: fires when the run is canceled or aborted.
        logger: the app's.
        engine: `engine.name` is "local" or "inngest".
        idempotency_key: the same in every repetition of this step: give it to services that are called twice.

    Data is the step's own: changing it in place changes nothing elsewhere (but values of `request_context`).
    """

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
        """The validated input of the workflow that the step is in, the nested one's in a nested workflow."""
        return self._facts.init_data()

    def get_step_result(self, step: Step[Any, Any] | str) -> Any:
        """The output (JSON data) of a step of this workflow that has succeeded, or None."""
        return self._facts.step_result(step if isinstance(step, str) else step.id)

    def set_state(self, state: Any) -> None:
        """Merge these keys into the run's state once the step has succeeded or is suspended.

        Takes a mapping or a model; a second call adds to the first. `ctx.state` stays as it was in this step.
        Of steps that run at the same time, the last to end wins. Raises ValidationError where the result
        would not fit the state's schema.
        """
        self._facts.set_state(state)

    def abort(self) -> None:
        """Cancel the run: the signal fires now, and nothing runs after this step."""
        self._facts.aborted.append(True)
        self.abort_signal.set()

    def suspend(
        self, payload: Suspend | dict[str, Any] | None = None, resume_label: str | Sequence[str] | None = None
    ) -> Coroutine[Any, Any, NoReturn]:
        """Stop here until the run is resumed: `await ctx.suspend(…)` never returns.

        The payload (an object, validated by `suspend_schema`) tells whoever resumes what is asked; a label
        lets them name this place. On resume the step's code begins again, with the same input:

            if ctx.resume_data is None:
                await ctx.suspend({"question": "Publish?"})
            return ctx.resume_data.approved

        Raises FlowctlError in a plain `def`.
        """
        self._check_async("suspend")
        labels = [resume_label] if isinstance(resume_label, str) else list(resume_label or [])
        return _Leave("suspend", SuspendSignal(payload, labels), self._facts.open_calls)

    def bail(self, result: Any = None) -> Coroutine[Any, Any, NoReturn]:
        """End the workflow now, with success and this result: `await ctx.bail(…)` never returns.

        In a nested workflow it ends that one alone; in a parallel, a branch or a foreach it ends the run once
        the siblings under way have settled. Raises FlowctlError in a plain `def`.
        """
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
