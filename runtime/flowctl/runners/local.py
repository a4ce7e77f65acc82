"""The local engine: runs legs in this process; what survives is the snapshot.

Called by `run` and by `app` (which takes over runs whose process died).
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
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
from flowctl.storage.base import Lease, Storage

if TYPE_CHECKING:
    from flowctl.app import App
    from flowctl.workflow import Workflow

LEASE_MS = 15_000
HEARTBEAT_SECONDS = 4.0
LONGEST_TURN_SECONDS = 0.001
_OWN: set[str] = set()  # the owners that this process has made


@dataclass(slots=True)
class InFlight:
    """The bodies of a leg that are under way; once it is to be left, no other begins. `ended`: none is."""

    count: int = 0
    is_leaving: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, body: Callable[[], Awaitable[Memo]]) -> Memo:
        """Run one; in a leg that is to be left, wait for the end of that leg instead."""
        if self.is_leaving:
            await asyncio.Event().wait()
        self.count += 1
        try:
            return await body()
        finally:
            self.count -= 1
            self._note_end()

    def leave(self) -> None:
        """Begin no other."""
        self.is_leaving = True
        self._note_end()

    def _note_end(self) -> None:
        if self.is_leaving and not self.count:
            self.ended.set()


@dataclass(slots=True)
class LocalOps:
    """Durable operations of this process: bodies commit themselves, so they just run."""

    clock: Clock
    signal: AbortSignal
    in_flight: InFlight = field(default_factory=InFlight)
    _let_in: float = 0.0
    _gathers: int = 0

    async def run(
        self,
        op: str,
        body: Callable[[], Awaitable[Memo]],
        *,
        repeatable: bool = False,
        key: str | None = None,
        carries: bool = False,
        kept: Callable[[], Awaitable[Mapping[str, Any] | None]] | None = None,
    ) -> Memo:
        """See DurableOps; a run whose steps never wait lets others in now and then.

        Branches take turns, step by step: on Inngest they do so while their steps are reported.
        """
        del op, key, carries, kept
        memo = await self.in_flight.run(body)
        if self._gathers:
            if not repeatable:
                await asyncio.sleep(0)
        elif time.monotonic() - self._let_in > LONGEST_TURN_SECONDS:
            await asyncio.sleep(0)
            self._let_in = time.monotonic()
        return memo

    def unremembered(self, key: str) -> Mapping[str, Memo]:
        """See DurableOps."""
        del key
        return {}

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

    async def invoke(self, op: str, workflow: Workflow[Any, Any], *, ask: object, take: object) -> None:
        """See DurableOps; here flow control has no effect, so there is nothing to be run apart."""
        del op, workflow, ask, take

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

        self._gathers += 1
        try:
            async with asyncio.TaskGroup() as group:
                for first in range(window):
                    group.create_task(worker(first))
        finally:
            self._gathers -= 1
        return values


@dataclass(frozen=True, slots=True, eq=False)
class LocalLeg:
    """A leg of this process: its task, what tells its steps of a cancellation, and what tells its callers.

    `left` has the number of the last event here, once the leg was left to another process.
    """

    task: asyncio.Task[dict[str, Any]]
    signal: AbortSignal
    canceled: asyncio.Event
    in_flight: InFlight
    left: asyncio.Future[int]

    async def ended(self) -> int | None:
        """Wait until it has ended, or its run is canceled (a step in flight may go on); raises its error.

        Answers None, or the number of the last event here of a leg that was left to another process.
        """
        told = asyncio.ensure_future(self.canceled.wait())
        try:
            await asyncio.wait((self.task, told), return_when=asyncio.FIRST_COMPLETED)
        finally:
            told.cancel()
        if self.canceled.is_set():
            return None
        if self.task.cancelled() and self.in_flight.is_leaving:
            return await asyncio.shield(self.left)
        self.task.result()
        return None

    def cancel(self) -> None:
        """Tell the step in flight and the callers, from any thread."""
        self.signal.set()
        loop = self.task.get_loop()
        if not loop.is_closed():
            loop.call_soon_threadsafe(self.canceled.set)


@dataclass(slots=True)
class Parting:
    """Leaves legs of this event loop to another process, each as soon as no body of it is under way."""

    storage: Storage
    owner: str
    on_left: Callable[[], None]
    under_way: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)

    def leave(self, run: tuple[str, str], leg: LocalLeg) -> None:
        """Begin to leave one."""
        if leg.task.get_loop() is self.loop:
            self.under_way.add(leaving := self.loop.create_task(self._leave(run, leg)))
            leaving.add_done_callback(self.under_way.discard)

    async def _leave(self, run: tuple[str, str], leg: LocalLeg) -> None:
        leg.in_flight.leave()
        ended = asyncio.ensure_future(leg.in_flight.ended.wait())
        await asyncio.wait({ended, leg.task}, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        leg.task.cancel()
        await asyncio.wait({leg.task})
        if leg.task.cancelled():
            await self._release(run, leg)

    async def _release(self, run: tuple[str, str], leg: LocalLeg) -> None:
        try:
            known = await self.storage.read_events(*run)
            await self.storage.release_lease(*run, owner=self.owner)
        except StorageError as err:
            leg.left.set_exception(err)
        else:
            leg.left.set_result(known[-1][0] if known else 0)
            self.on_left()


@dataclass(slots=True)
class LocalRunner:
    """Executes legs as tasks, and holds their leases while it lives."""

    app: App
    owner: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}")
    _legs: dict[tuple[str, str], LocalLeg] = field(default_factory=dict[tuple[str, str], LocalLeg])
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _heart: threading.Thread | None = None
    _parting: Parting | None = None
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
        self.app.tell_of_idle_options(workflow)
        run_id = leg.snapshot.run_id
        signal = AbortSignal()
        clock = self.app.clock
        journal = StoredJournal(
            self.app.storage, self.app.feed, workflow.id, run_id, number, clock, repeats=False
        )
        env = Environment(self.app, EngineInfo("local"), self.app.logger, signal, resource_id, clock.now())
        ops = LocalOps(clock, signal)
        walk = Walk.of(workflow, leg, ops, journal, env)
        task = asyncio.create_task(execute_leg(walk), name=f"flowctl:{workflow.id}:{run_id}")
        left = asyncio.get_running_loop().create_future()
        running = LocalLeg(task, signal, asyncio.Event(), ops.in_flight, left)
        with self._lock:
            self._legs[workflow.id, run_id] = running
            if self._heart is None:
                self._stopped.clear()
                self._start_heart()
        task.add_done_callback(lambda _: self._forget((workflow.id, run_id), running))
        if self._parting is not None:
            self._parting.leave((workflow.id, run_id), running)
        return running

    @property
    def steps_under_way(self) -> int:
        """How many bodies run now."""
        return sum(leg.in_flight.count for leg in self._legs.values())

    @property
    def is_busy(self) -> bool:
        """Whether there is a run here that has neither ended nor been left."""
        return bool(self._legs or (self._parting and self._parting.under_way))

    def part(self, on_left: Callable[[], None] = lambda: None) -> None:
        """Begin no step here any more: each run, once its steps under way have ended, is left to the process
        that comes after, and `on_left` is called. Who waits here for such a run gets its result as before."""
        if self._parting is not None:
            return
        self._parting = Parting(self.app.storage, self.owner, on_left)
        for run, leg in list(self._legs.items()):
            self._parting.leave(run, leg)

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
        if self._parting is not None:
            await asyncio.gather(*self._parting.under_way)
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
