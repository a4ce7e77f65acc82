"""The local engine: runs legs in this process; what survives is the snapshot.

Called by `run` and by `app` (which takes over runs whose process died).
"""

from __future__ import annotations

import asyncio
import os
import socket
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flowctl.clock import Clock, now_ms
from flowctl.context import AbortSignal, EngineInfo
from flowctl.execution.executor import execute_leg
from flowctl.execution.ops import Memo
from flowctl.execution.plans import Leg
from flowctl.execution.walk import Environment, Walk
from flowctl.runners.journal import StoredJournal
from flowctl.storage.base import Lease

if TYPE_CHECKING:
    from flowctl.app import App
    from flowctl.workflow import Workflow

LEASE_MS = 15_000
HEARTBEAT_SECONDS = 4.0


@dataclass(slots=True)
class LocalOps:
    """Durable operations of this process: bodies commit themselves, so they just run."""

    clock: Clock

    async def run(self, op: str, body: Callable[[], Awaitable[Memo]], *, repeatable: bool = False) -> Memo:
        """See DurableOps."""
        del op, repeatable
        return await body()

    async def sleep(self, op: str, until: int) -> None:
        """See DurableOps."""
        del op
        await self.clock.sleep_until(until)

    async def gather(
        self,
        thunks: Sequence[Callable[[], Awaitable[Any]]],
        *,
        limit: int | None = None,
        stops: Callable[[Any], bool] | None = None,
    ) -> list[Any]:
        """See DurableOps."""
        waiting = iter(enumerate(thunks))
        values: list[Any] = [None] * len(thunks)

        async def worker() -> None:
            for index, thunk in waiting:
                values[index] = await thunk()
                if stops is not None and stops(values[index]):
                    list(waiting)  # nobody begins another

        async with asyncio.TaskGroup() as group:
            for _ in range(min(limit or len(thunks), len(thunks))):
                group.create_task(worker())
        return values


@dataclass(slots=True)
class LocalRunner:
    """Executes legs as tasks, and holds their leases while it lives."""

    app: App
    owner: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}")
    _tasks: dict[tuple[str, str], tuple[asyncio.Task[Any], AbortSignal]] = field(
        default_factory=dict[tuple[str, str], tuple[asyncio.Task[Any], AbortSignal]]
    )
    _heart: asyncio.Task[None] | None = None

    def lease(self) -> Lease:
        """A lease of this runner that begins now."""
        return Lease(self.owner, now_ms() + LEASE_MS)

    def launch(
        self, workflow: Workflow[Any, Any], leg: Leg, *, number: int, resource_id: str | None
    ) -> asyncio.Task[dict[str, Any]]:
        """Begin a leg that was claimed; the task ends with it."""
        run_id = leg.snapshot.run_id
        signal = AbortSignal()
        clock = self.app.clock
        journal = StoredJournal(
            self.app.storage, self.app.feed, workflow.id, run_id, number, clock, repeats=False
        )
        env = Environment(self.app, EngineInfo("local"), self.app.logger, signal, resource_id)
        walk = Walk.of(workflow, leg, LocalOps(clock), journal, env)
        task = asyncio.create_task(execute_leg(walk), name=f"flowctl:{workflow.id}:{run_id}")
        self._tasks[workflow.id, run_id] = task, signal
        task.add_done_callback(lambda _: self._tasks.pop((workflow.id, run_id), None))
        if self._heart is None or self._heart.done():
            self._heart = asyncio.create_task(self._beat(), name="flowctl:leases")
        return task

    def abort(self, workflow_id: str, run_id: str) -> None:
        """Fire the abort signal of a run of this process; a sleep ends at once."""
        running = self._tasks.get((workflow_id, run_id))
        if running is None:
            return
        task, signal = running
        signal.set()
        task.get_loop().call_soon_threadsafe(task.cancel)

    async def stop(self, *, grace: float) -> None:
        """Give running legs this many seconds; what is left goes on when an app starts again."""
        tasks = [task for task, _ in self._tasks.values() if task.get_loop() is asyncio.get_running_loop()]
        if tasks:
            await asyncio.wait(tasks, timeout=grace)
        for task in [*tasks, *([self._heart] if self._heart else [])]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.app.storage.renew_leases(self.owner, until=0)

    async def _beat(self) -> None:
        while self._tasks:
            await self.app.storage.renew_leases(self.owner, until=now_ms() + LEASE_MS)
            await asyncio.sleep(HEARTBEAT_SECONDS)


def is_lost(lease_owner: str | None) -> bool:
    """Whether the holder of a lease is gone: the lease lapsed, or its process on this host ended."""
    if lease_owner is None:
        return True
    host, pid, _ = lease_owner.split(":", 2)
    return host == socket.gethostname() and int(pid) != os.getpid() and not _is_alive(int(pid))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
