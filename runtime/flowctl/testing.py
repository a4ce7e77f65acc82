"""What tests of workflows need: a run without a server, an app on either engine, a clock that skips sleeps.

Called by users' tests and `flowctl.pytest_plugin`; calls `app`, `run` and, for Inngest, the embedded engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, Self

from typing_extensions import TypeVar

from flowctl.app import App
from flowctl.clock import Clock, now_ms
from flowctl.errors import EngineError
from flowctl.request_context import RequestContext
from flowctl.result import RunResult
from flowctl.run import create_run
from flowctl.server import serve
from flowctl.server.config import ServerConfig
from flowctl.storage import MemoryStorage, Storage
from flowctl.workflow import Workflow

if TYPE_CHECKING:
    import inngest
    from starlette.types import ASGIApp

    from flowctl.engine import Engine

__all__ = ["TestApp", "TestClock", "run_workflow"]

Out = TypeVar("Out", default=Any)
SETTLE_SECONDS = 0.001
HOLD_SECONDS = 1.0
"""For how long a function that is called holds the clock: it may wait for another run, that sleeps."""


class TestClock:
    """A clock on which sleeps and retry delays take no time; it begins now, or at `start` (naive: UTC).

    It stands still while code runs and jumps to the earliest moment that anyone sleeps until, so sleeps that
    overlap end in their order. Only what engines wait for is skipped: what a step awaits by itself takes as
    long as it takes. What an event may yet forestall (timeouts) and schedules come with `advance`.
    """

    __test__ = False

    def __init__(self, start: datetime | None = None) -> None:
        self._started = now_ms() if start is None else _millis(start)
        self._now = self._started
        self._sleeping: list[int] = []
        self._engines: dict[asyncio.Event, _EngineAtWait] = {}

    @property
    def elapsed(self) -> timedelta:
        """How much time was skipped so far."""
        return timedelta(milliseconds=self._now - self._started)

    def now(self) -> int:
        """The time in epoch milliseconds."""
        return self._now

    async def sleep_until(self, until: int) -> None:
        """See Clock."""
        self._sleeping.append(until)
        try:
            while self._now < until:
                await asyncio.sleep(SETTLE_SECONDS)  # others reach their own sleeps
                self._skip()
        finally:
            self._sleeping.remove(until)

    async def wait(
        self, woken: asyncio.Event, due: int | None, *, certain: Callable[[], int | None], is_busy: bool
    ) -> None:
        """See Clock: a wait of the embedded engine."""
        engine = self._engines[woken] = _EngineAtWait(woken, due, is_busy=is_busy)
        try:
            if not is_busy or not await _within(HOLD_SECONDS, woken):
                await self._rest(woken, certain())
        finally:
            engine.has_left()

    async def advance(self, by: timedelta = timedelta(0)) -> None:
        """Let time pass on the embedded engine, and all happen that comes in it, in its order.

        Returns once no function is called or sleeps. What it brings about and `sleep` does not: schedules,
        and timeouts of runs and of waits for events.

            await app.inngest.send(inngest.Event(name="signed-up"))
            await app.clock.advance(timedelta(days=3))
        """
        await self.sleep_until(self._now + by // timedelta(milliseconds=1))
        while self._sleeping or any(engine.is_at_work for engine in self._engines.values()):  # noqa: ASYNC110 - they tell by a flag
            await asyncio.sleep(SETTLE_SECONDS)

    async def _rest(self, woken: asyncio.Event, until: int | None) -> None:
        """Until the engine is woken, by this clock too once one of its jobs is due."""
        if until is None:
            await woken.wait()
            return
        self._sleeping.append(until)
        try:
            while not await _within(SETTLE_SECONDS, woken):
                self._skip()
        finally:
            self._sleeping.remove(until)

    def _skip(self) -> None:
        """Go on to the next moment that anyone waits for, unless an engine works."""
        engines = self._engines.values()
        if any(engine.holds for engine in engines):
            return
        ahead = [engine.due for engine in engines if engine.due is not None and engine.due > self._now]
        self._now = max(self._now, min([*self._sleeping, *ahead]))
        for engine in engines:
            if engine.due is not None and engine.due <= self._now:
                engine.woken.set()


@dataclass(slots=True)
class _EngineAtWait:
    """An embedded engine that waits, or did until just now."""

    woken: asyncio.Event
    due: int | None
    is_busy: bool
    waits: bool = True
    since: float = field(default_factory=time.monotonic)

    def has_left(self) -> None:
        """It works now, or is no longer."""
        self.due, self.waits, self.since = None, False, time.monotonic()

    @property
    def is_at_work(self) -> bool:
        """Whether something is under way: it calls apps, or does what is due."""
        return self.is_busy or self.woken.is_set() if self.waits else self._is_recent

    @property
    def holds(self) -> bool:
        """Whether time stands still for what is under way; not for long, as that may wait for other runs."""
        return self.is_at_work and self._is_recent

    @property
    def _is_recent(self) -> bool:
        return time.monotonic() - self.since < HOLD_SECONDS


async def _within(seconds: float, event: asyncio.Event) -> bool:
    """Whether an event is set before that time is over."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            return await event.wait()
    return False


async def run_workflow(
    workflow: Workflow[Any, Out],
    input_data: Any = None,
    *,
    initial_state: Any = None,
    request_context: RequestContext | Mapping[str, Any] | None = None,
    run_id: str | None = None,
    resource_id: str | None = None,
    per_step: bool = False,
    clock: Clock | None = None,
) -> RunResult[Out]:
    """Run a workflow in this process to its first stop: no server, no file, and sleeps are skipped.

    Works with any workflow, whichever app or Inngest client it belongs to, and leaves it there. `clock` is a
    new TestClock unless given. Raises ValidationError as `Run.start` does; a step that fails makes a failed
    result. To resume a run, use TestApp.

        result = await run_workflow(workflow, {"value": 5})
        assert result.status == "success"
    """
    if not workflow.committed:
        workflow.commit()
    app = App(storage=MemoryStorage(), engine="local", clock=clock or TestClock())
    try:
        run = await create_run(workflow, run_id=run_id, resource_id=resource_id, app=app)
        return await run.start(input_data, initial_state, request_context, per_step=per_step)
    finally:
        await app.stop()


class TestApp(App):
    """An app for one test: `async with TestApp(workflows=[workflow]) as app`.

    It is an App with runs in memory and a clock that skips sleeps. With `engine="inngest"` it is served over
    HTTP, on a free port, to an embedded Inngest engine of its own. `TestApp(app)` takes the workflows,
    functions and settings of an app that exists; they belong there again when the test ends. `clock` is a
    new TestClock unless given, `storage` one in memory. On Inngest `inngest` is the client of that engine.
    """

    __test__ = False

    def __init__(
        self,
        app: App | None = None,
        *,
        workflows: Sequence[Workflow[Any, Any]] = (),
        functions: Sequence[inngest.Function[Any]] = (),
        engine: Literal["local", "inngest"] = "local",
        storage: Storage | None = None,
        server: ServerConfig | None = None,
        logger: logging.Logger | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(
            functions=[*(app.functions if app else ()), *functions],
            storage=storage or MemoryStorage(),
            server=server or (app.server if app else None),
            logger=logger or (app.logger if app else None),
            engine=engine,
            clock=clock or TestClock(),
        )
        self._wanted = [*(app.workflows.values() if app else ()), *workflows]
        self._client = app.inngest if app else None
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(_give_back, [_Home.of(workflow) for workflow in _all_of(self._wanted)])
            for workflow in self._wanted:
                self._register(workflow)
            stack.push_async_callback(self.stop)
            if self.engine == "inngest":
                await self._connect(stack)
            await self.start()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _connect(self, stack: contextlib.AsyncExitStack) -> None:
        """Start an engine, serve this app's functions to it, and have it know them."""
        from flowctl.engine import Engine, EngineConfig  # noqa: PLC0415 - only tests on Inngest need a server

        engine = await stack.enter_async_context(Engine(EngineConfig(port=0), clock=self.clock))
        self.inngest = await stack.enter_async_context(
            _client_of(engine, self._client or self._adopted_client(), self.clock)
        )
        for workflow in self.workflows.values():
            workflow.client = self.inngest
        url = await stack.enter_async_context(_served(serve(self)))
        headers = {"x-inngest-server-kind": "dev"}
        answer = await engine.transport.request("PUT", f"{url}/api/inngest", headers=headers)
        if answer.status != 200:
            raise EngineError(f"The embedded engine could not sync the app: {answer.body!r}")


@dataclass(frozen=True, slots=True)
class _Home:
    """Where a workflow belongs outside the test."""

    workflow: Workflow[Any, Any]
    app: App | None
    client: inngest.Inngest | None

    @classmethod
    def of(cls, workflow: Workflow[Any, Any]) -> _Home:
        return cls(workflow, workflow.app, workflow.client)


def _give_back(homes: Sequence[_Home]) -> None:
    for home in homes:
        home.workflow.app, home.workflow.client = home.app, home.client


def _all_of(workflows: Sequence[Workflow[Any, Any]]) -> list[Workflow[Any, Any]]:
    found = list(workflows)
    for workflow in found:
        found += [nested for nested in workflow.nested if nested not in found]
    return found


@contextlib.asynccontextmanager
async def _client_of(
    engine: Engine, origin: inngest.Inngest | None, clock: Clock
) -> AsyncGenerator[inngest.Inngest]:
    """A client of the engine, with the id, middleware and serializer of the app's own."""
    import inngest  # noqa: PLC0415 - only tests on Inngest need it

    from flowctl.runners.on_clock import on_clock  # noqa: PLC0415 - imports inngest

    client = inngest.Inngest(
        app_id=origin.app_id if origin else "test",
        is_production=False,
        api_base_url=engine.url,
        event_api_base_url=engine.url,
        middleware=[*(origin.middleware if origin else ()), on_clock(clock)],
        serializer=origin._serializer if origin else None,  # noqa: SLF001 - the client shows it nowhere else  # pyright: ignore[reportPrivateUsage]
    )
    yield client
    await client._http_client._http_client.aclose()  # noqa: SLF001 - a client cannot be closed otherwise  # pyright: ignore[reportPrivateUsage]


@contextlib.asynccontextmanager
async def _served(asgi: ASGIApp, listener: socket.socket | None = None) -> AsyncGenerator[str]:
    """Serve an ASGI application in this event loop, at a bound socket or a free port; gives its URL."""
    import uvicorn  # noqa: PLC0415 - only tests on Inngest need a server

    class Server(uvicorn.Server):
        """One that leaves the process's signals to the test runner."""

        @contextlib.contextmanager
        def capture_signals(self) -> Generator[None]:
            yield

    config = uvicorn.Config(asgi, log_level="error", lifespan="off", timeout_graceful_shutdown=1)
    server = Server(config)
    if listener is None:
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
    serving = asyncio.create_task(server.serve([listener]))
    try:
        while not server.started:  # noqa: ASYNC110 - uvicorn tells by a flag only
            await asyncio.sleep(SETTLE_SECONDS)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


def _millis(moment: datetime) -> int:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(aware.timestamp() * 1000)
