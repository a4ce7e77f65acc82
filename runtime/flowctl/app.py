"""The app: workflows, functions, storage and engine under one roof."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from flowctl import telemetry
from flowctl.clock import Clock, SystemClock
from flowctl.errors import DefinitionError, StorageError, WorkflowNotFoundError
from flowctl.legs import LegLimits
from flowctl.pubsub import Feed
from flowctl.server.config import ServerConfig
from flowctl.snapshot import RunStatus
from flowctl.storage import SQLiteStorage, Storage
from flowctl.workflow import Workflow

if TYPE_CHECKING:
    import inngest
    from starlette.applications import Starlette

    from flowctl.deployers import Deployer
    from flowctl.runners.dispatch import InngestRunner
    from flowctl.runners.local import LocalRunner

STOP_GRACE_SECONDS = 5.0
PRUNE_SECONDS = 600.0
TAKE_OVER_SECONDS = 5.0
MEASURE_SECONDS = 15.0
MEASURED: tuple[RunStatus, ...] = ("pending", "running", "waiting", "suspended")


class App:
    """What a project serves: its workflows and functions, where runs are kept, which engine runs them.

        app = App(workflows=[workflow], functions=[send_mail], inngest=client)

    Args:
        workflows: those that are served; nested ones need not be listed. Uncommitted ones are committed.
        functions: Inngest functions of your own, served beside them.
        inngest: the client; without one that of the workflows made by `init(client)` and of the functions, if
            it can be seen in the module that a function is written in.
        storage: where runs are kept; without one the SQLite file `.flowctl/flowctl.db`.
        retention: a started app forgets runs, of any workflow in its storage, that ended longer ago.
        server: host, port, auth and more of the HTTP side.
        logger: where steps' failures are told; the logger `flowctl` otherwise.
        engine: "local" (this process) or "inngest"; without it Inngest where there is a client.
        deployer: what `flowctl deploy` uses.
        clock: the time of runs; tests give one that skips sleeps.
        leg_limits: when a long run on Inngest goes on in a new function run, and when a request is answered.

    Raises DefinitionError for two workflows with one id, or parts of two different Inngest clients.
    """

    def __init__(
        self,
        *,
        workflows: Sequence[Workflow[Any, Any]] = (),
        functions: Sequence[inngest.Function[Any]] = (),
        inngest: inngest.Inngest | None = None,
        storage: Storage | None = None,
        retention: timedelta | None = None,
        server: ServerConfig | None = None,
        logger: logging.Logger | None = None,
        engine: Literal["local", "inngest"] | None = None,
        deployer: Deployer | None = None,
        clock: Clock | None = None,
        leg_limits: LegLimits | None = None,
    ) -> None:
        self.functions = list(functions)
        self.storage: Storage = storage or SQLiteStorage()
        self.retention = retention
        self.server = server or ServerConfig()
        self.logger = logger or logging.getLogger("flowctl")
        self.engine: Literal["local", "inngest"] | None = engine
        self.deployer = deployer
        self.clock: Clock = clock or SystemClock()
        self.leg_limits = leg_limits or LegLimits()
        self.feed = Feed()
        self.workflows: dict[str, Workflow[Any, Any]] = {}
        for workflow in workflows:
            self._register(workflow)
        self.inngest = inngest or self._adopted_client()
        self._runner: LocalRunner | None = None
        self._inngest_runner: InngestRunner | None = None
        self._asgi: Starlette | None = None
        self._told_of: set[str] = set()
        self._chores: list[asyncio.Task[None]] = []

    @property
    def local_runner(self) -> LocalRunner:
        """The local engine of this app."""
        if self._runner is None:
            from flowctl.runners.local import LocalRunner  # noqa: PLC0415 - only runs need the execution

            self._runner = LocalRunner(self)
        return self._runner

    @property
    def asgi(self) -> Starlette:
        """The whole ASGI application: REST API, `/api/inngest`, `/health`, your own routes."""
        if self._asgi is None:
            from flowctl.server.app import create_asgi  # noqa: PLC0415 - only servers need Starlette

            self._asgi = create_asgi(self)
        return self._asgi

    @property
    def inngest_runner(self) -> InngestRunner:
        """The side of this app that talks to Inngest."""
        if self._inngest_runner is None:
            from flowctl.runners.dispatch import InngestRunner  # noqa: PLC0415 - only Inngest runs need it

            self._inngest_runner = InngestRunner(self)
        return self._inngest_runner

    def inngest_functions(self) -> list[inngest.Function[Any]]:
        """All functions to serve at `/api/inngest`: the workflows' and the app's own."""
        own = self.inngest_runner.functions() if self.inngest is not None else []
        by_id: dict[str, inngest.Function[Any]] = {}
        for function in [*own, *self.functions]:
            if by_id.setdefault(function.local_id, function) is not function:
                raise DefinitionError(
                    f"The app has two functions with the id {function.local_id!r}: rename one."
                )
        return list(by_id.values())

    def get_workflow(self, workflow_id: str) -> Workflow[Any, Any]:
        """The workflow with that id; raises WorkflowNotFoundError naming those there are."""
        if workflow_id not in self.workflows:
            raise WorkflowNotFoundError(workflow_id, self.workflows)
        return self.workflows[workflow_id]

    def engine_for(self, workflow: Workflow[Any, Any]) -> Literal["local", "inngest"]:
        """Which engine runs a workflow: the app's choice, else Inngest where there is a client."""
        if self.engine is not None:
            return self.engine
        if workflow.client is not None or self.inngest is not None:
            return "inngest"
        return "local"

    def tell_of_idle_options(self, workflow: Workflow[Any, Any]) -> None:
        """Log, once, which options of a workflow of the local engine act on Inngest only."""
        options = workflow.options
        idle = [*options.flow_control, *(["cron"] if options.cron else [])]
        if idle and workflow.id not in self._told_of:
            self._told_of.add(workflow.id)
            self.logger.warning(
                "Workflow %r runs on the local engine, where %s has no effect: that is for runs on Inngest.",
                workflow.id,
                ", ".join(idle),
            )

    async def opened(self) -> Storage:
        """The storage, open."""
        await self.storage.open()
        return self.storage

    async def start(self) -> None:
        """Open the storage, take over local runs whose process is gone, send what was not sent to Inngest.

        Servers and `TestApp` do it for you. Raises StorageError.
        """
        from flowctl.take_over import take_over  # noqa: PLC0415 - runs import the app: the cycle is cut here

        await self.storage.open()
        for workflow in self.workflows.values():
            if self.engine_for(workflow) == "local":
                self.tell_of_idle_options(workflow)
        await take_over(self)
        self._chores.append(asyncio.create_task(self._take_over_later()))
        if self.inngest is not None:
            self._chores.append(self.inngest_runner.start())
        self._chores.append(asyncio.create_task(self._measure_runs()))
        if self.retention is not None:
            self._chores.append(asyncio.create_task(self._forget_old_runs(self.retention)))

    def lifespan(self, _: Any = None) -> AbstractAsyncContextManager[Any]:
        """The life of `asgi`, for an application that it is mounted in: `FastAPI(lifespan=app.lifespan)`."""
        return self.asgi.router.lifespan_context(self.asgi)

    def drain(self) -> None:
        """End open event streams, before a stop: their clients take them up again from another process."""
        if self._asgi is not None:
            self._asgi.state.streams.close()

    async def stop(self) -> None:
        """Let running legs end (some seconds), then close the storage."""
        chores, self._chores = self._chores, []
        for chore in chores:
            chore.cancel()
        await asyncio.gather(*chores, return_exceptions=True)
        if self._runner is not None:
            await self._runner.stop(grace=STOP_GRACE_SECONDS)
        if self._inngest_runner is not None:
            await self._inngest_runner.stop(grace=STOP_GRACE_SECONDS)
        await self.storage.close()

    async def _take_over_later(self) -> None:
        """Take over runs whose lease lapses while this app is up: of a process on another host that died."""
        from flowctl.take_over import take_over  # noqa: PLC0415 - as above

        while any(self.engine_for(workflow) == "local" for workflow in self.workflows.values()):
            await asyncio.sleep(TAKE_OVER_SECONDS)
            try:
                await take_over(self)
            except StorageError as err:
                self.logger.warning("Could not look for runs whose process is gone: %s", err)

    async def _measure_runs(self) -> None:
        """Count what waits and what is under way, for metrics; nothing where nobody reads them."""
        while True:
            if telemetry.is_measuring() and self.workflows:
                try:
                    found = await self.storage.count_runs(list(self.workflows), MEASURED)
                    telemetry.runs_counted(
                        {(w, s): found.get((w, s), 0) for w in self.workflows for s in MEASURED}
                    )
                except StorageError as err:
                    self.logger.warning("Runs could not be counted for metrics: %s", err)
            await asyncio.sleep(MEASURE_SECONDS)

    async def _forget_old_runs(self, retention: timedelta) -> None:
        while True:
            before = self.clock.now() - int(retention.total_seconds() * 1000)
            try:
                while await self.storage.prune(before=before):  # noqa: ASYNC110 - lets others in between
                    await asyncio.sleep(0)
            except StorageError as err:
                self.logger.warning("Runs that ended long ago could not be deleted: %s", err)
            await asyncio.sleep(PRUNE_SECONDS)

    def _register(self, workflow: Workflow[Any, Any]) -> None:
        if not getattr(workflow, "is_workflow", False):
            raise DefinitionError(f"App takes workflows, made by create_workflow, not {workflow!r}.")
        if self.workflows.setdefault(workflow.id, workflow) is not workflow:
            raise DefinitionError(f"The app has two workflows with the id {workflow.id!r}: rename one.")
        if not workflow.committed:
            workflow.commit()
        workflow.app = self
        for nested in workflow.nested:
            if self.workflows.get(nested.id) is not nested:
                self._register(nested)

    def _adopted_client(self) -> inngest.Inngest | None:
        if not self.functions and all(workflow.client is None for workflow in self.workflows.values()):
            return None
        from flowctl.runners.clients import adopted_client  # noqa: PLC0415 - only apps with a client need Inngest

        return adopted_client(self.workflows.values(), self.functions)


_default: list[App] = []


def default_app() -> App:
    """The app of workflows that are registered with none: default storage, local engine."""
    if not _default:
        _default.append(App(engine="local"))
    return _default[0]
