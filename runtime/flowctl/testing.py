"""What tests of workflows need: a run without a server, an app on either engine, a clock that skips sleeps.

Called by users' tests and `flowctl.pytest_plugin`; calls `app`, `run` and, for Inngest, the embedded engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from dataclasses import dataclass
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
from flowctl.storage import SQLiteStorage, Storage
from flowctl.workflow import Workflow

if TYPE_CHECKING:
    import inngest
    from starlette.types import ASGIApp

    from flowctl.engine import Engine

__all__ = ["TestApp", "TestClock", "run_workflow"]

Out = TypeVar("Out", default=Any)
SETTLE_SECONDS = 0.001


class TestClock:
    """A clock on which sleeps and retry delays take no time; it begins now, or at `start` (naive: UTC).

    It stands still while code runs and jumps to the earliest moment that anyone sleeps until, so sleeps that
    overlap on the local engine end in their order. Only the workflow's own sleeps are skipped: what a step
    awaits by itself takes as long as it takes.
    """

    __test__ = False

    def __init__(self, start: datetime | None = None) -> None:
        self._started = now_ms() if start is None else _millis(start)
        self._now = self._started
        self._sleeping: list[int] = []

    @property
    def elapsed(self) -> timedelta:
        """How much time was skipped so far: sleeps and delays of retries."""
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
                self._now = max(self._now, min(self._sleeping))
        finally:
            self._sleeping.remove(until)

    def wall_time(self, until: int) -> int:
        """See Clock: at once, for the engine has its own time."""
        self._now = max(self._now, until)
        return now_ms()


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
    app = App(storage=SQLiteStorage(":memory:"), engine="local", clock=clock or TestClock())
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
            storage=storage or SQLiteStorage(":memory:"),
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

        engine = await stack.enter_async_context(Engine(EngineConfig(port=0)))
        self.inngest = await stack.enter_async_context(
            _client_of(engine, self._client or self._adopted_client())
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
async def _client_of(engine: Engine, origin: inngest.Inngest | None) -> AsyncGenerator[inngest.Inngest]:
    """A client of the engine, with the id, middleware and serializer of the app's own."""
    import inngest  # noqa: PLC0415 - only tests on Inngest need it

    client = inngest.Inngest(
        app_id=origin.app_id if origin else "test",
        is_production=False,
        api_base_url=engine.url,
        event_api_base_url=engine.url,
        middleware=origin.middleware if origin else None,
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
