"""The local engine: runs legs in this process; what survives is the snapshot.

Called by `run` and by `app` (which takes over runs whose process died).
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import threading
import uuid
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from flowctl.clock import Clock, now_ms
from flowctl.context import AbortSignal, EngineInfo
from flowctl.errors import StorageError
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
_OWN: set[str] = set()  # the owners that this process has made


@dataclass(slots=True)
class LocalOps:
    """Durable operations of this process: bodies commit themselves, so they just run."""

    clock: Clock
    signal: AbortSignal

    async def run(self, op: str, body: Callable[[], Awaitable[Memo]], *, repeatable: bool = False) -> Memo:
        """See DurableOps."""
        del op, repeatable
        return await body()

    async def sleep(self, op: str, until: int) -> None:
        """See DurableOps; a run that is canceled sleeps no longer."""
        del op
        sleeping = asyncio.ensure_future(self.clock.sleep_until(until))
        canceled = asyncio.ensure_future(self.signal.wait())
        try:
            await asyncio.wait((sleeping, canceled), return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()
            canceled.cancel()
        if sleeping.done():
            sleeping.result()

    async def gather(
        self,
        thunks: Sequence[Callable[[], Awaitable[Any]]],
        *,
        limit: int | None = None,
        stops: Callable[[Any], bool] | None = None,
    ) -> list[Any]:
        """See DurableOps."""
        window = min(limit or len(thunks), len(thunks))
        waiting = iter(range(window, len(thunks)))
        values: list[Any] = [None] * len(thunks)

        async def worker(first: int) -> None:
            for index in itertools.chain((first,), waiting):
                values[index] = await thunks[index]()
                if stops is not None and stops(values[index]):
                    list(waiting)  # nobody begins another

        async with asyncio.TaskGroup() as group:
            for first in range(window):
                group.create_task(worker(first))
        return values


@dataclass(frozen=True, slots=True, eq=False)
class LocalLeg:
    """A leg of this process: its task, what tells its steps of a cancellation, and what tells its callers."""

    task: asyncio.Task[dict[str, Any]]
    signal: AbortSignal
    canceled: asyncio.Event

    def __await__(self) -> Generator[Any, Any, None]:
        """Until the leg has ended, or its run is canceled (a step in flight may go on); raises its error."""
        return self._ended().__await__()

    async def _ended(self) -> None:
        told = asyncio.ensure_future(self.canceled.wait())
        try:
            await asyncio.wait((self.task, told), return_when=asyncio.FIRST_COMPLETED)
        finally:
            told.cancel()
        if self.task.done() and not self.canceled.is_set():
            self.task.result()

    def cancel(self) -> None:
        """Tell the step in flight and the callers, from any thread."""
        self.signal.set()
        loop = self.task.get_loop()
        if not loop.is_closed():
            loop.call_soon_threadsafe(self.canceled.set)


@dataclass(slots=True)
class LocalRunner:
    """Executes legs as tasks, and holds their leases while it lives."""

    app: App
    owner: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}")
    _legs: dict[tuple[str, str], LocalLeg] = field(default_factory=dict[tuple[str, str], LocalLeg])
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _heart: threading.Thread | None = None
    _stopped: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        _OWN.add(self.owner)

    def lease(self) -> Lease:
        """A lease of this runner that begins now."""
        return Lease(self.owner, now_ms() + LEASE_MS)

    def launch(
        self, workflow: Workflow[Any, Any], leg: Leg, *, number: int, resource_id: str | None
    ) -> LocalLeg:
        """Begin a leg that was claimed."""
        run_id = leg.snapshot.run_id
        signal = AbortSignal()
        clock = self.app.clock
        journal = StoredJournal(
            self.app.storage, self.app.feed, workflow.id, run_id, number, clock, repeats=False
        )
        env = Environment(self.app, EngineInfo("local"), self.app.logger, signal, resource_id)
        walk = Walk.of(workflow, leg, LocalOps(clock, signal), journal, env)
        task = asyncio.create_task(execute_leg(walk), name=f"flowctl:{workflow.id}:{run_id}")
        running = LocalLeg(task, signal, asyncio.Event())
        with self._lock:
            self._legs[workflow.id, run_id] = running
            if self._heart is None:
                self._stopped.clear()
                self._start_heart()
        task.add_done_callback(lambda _: self._forget((workflow.id, run_id), running))
        return running

    def _forget(self, run: tuple[str, str], leg: LocalLeg) -> None:
        if self._legs.get(run) is leg:
            del self._legs[run]

    def abort(self, workflow_id: str, run_id: str) -> None:
        """Fire the abort signal of a run of this process; a sleep ends at once, a step when it likes."""
        if (leg := self._legs.get((workflow_id, run_id))) is not None:
            leg.cancel()

    async def stop(self, *, grace: float) -> None:
        """Give running legs this many seconds; what is left goes on when an app starts again."""
        own = asyncio.get_running_loop()
        tasks = [leg.task for leg in self._legs.values() if leg.task.get_loop() is own]
        if tasks:
            await asyncio.wait(tasks, timeout=grace)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._stopped.set()
        if (heart := self._heart) is not None:
            await asyncio.to_thread(heart.join)
        await self.app.storage.renew_leases(self.owner, until=0)

    def _beat(self) -> None:
        """Renew leases in a thread of its own: whatever holds up an event loop, its runs are not lost."""
        while not self._stopped.wait(HEARTBEAT_SECONDS) and self._legs:
            try:
                asyncio.run(self._renew())
            except StorageError as err:
                self.app.logger.warning("Leases of running workflows could not be renewed: %s", err)
        with self._lock:
            self._heart = None
            if self._legs and not self._stopped.is_set():  # one was launched while this was ending
                self._start_heart()

    def _start_heart(self) -> None:
        self._heart = threading.Thread(target=self._beat, name="flowctl-leases", daemon=True)
        self._heart.start()

    async def _renew(self) -> None:
        await self.app.storage.renew_leases(self.owner, until=now_ms() + LEASE_MS)
        await self._notice_canceled()

    async def _notice_canceled(self) -> None:
        """Stop legs whose run another process has canceled."""
        held = list(self._legs)
        active = {(p.workflow_id, p.run_id) for p in await self.app.storage.active_local_runs(now_ms())}
        for run in set(held) - active:
            self.abort(*run)


def is_lost(lease_owner: str | None) -> bool:
    """Whether the holder of a lease is gone: the lease lapsed, or its process on this host ended."""
    if lease_owner is None:
        return True
    host, pid, _ = lease_owner.split(":", 2)
    if host != socket.gethostname():
        return False
    if int(pid) == os.getpid():  # in a container that was restarted, another process had the same number
        return lease_owner not in _OWN
    return not _is_alive(int(pid))


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
