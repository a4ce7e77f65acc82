"""Following a run's events: woken at once inside the process, by a short poll across processes.

Events live in storage, so a late subscriber gets all of them; this file only wakes those who wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Generator
from dataclasses import dataclass, field

from flowctl.errors import RunNotFoundError
from flowctl.events import WorkflowEvent
from flowctl.storage.base import Storage

POLL_SECONDS, LONGEST_POLL_SECONDS = 0.2, 1.0
POLLS_A_LOOK = 4  # in vain, after which the run itself is looked for


@dataclass(slots=True, eq=False)
class Waiter:
    """One who follows a run, in its event loop: all that happens, or only that it comes to rest."""

    for_rest: bool = False
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    pause: float = POLL_SECONDS
    _event: asyncio.Event = field(default_factory=asyncio.Event)

    def wake(self) -> None:
        """Tell it, from any event loop."""
        if self.loop is asyncio.get_running_loop():
            self._event.set()
        elif not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._event.set)

    async def wait(self) -> bool:
        """Wait to be told (true), or until it is time to look: nobody tells what other processes do."""
        # not wait_for, which on Python 3.11 forgets a cancellation that comes as the event is set
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.pause):
                await self._event.wait()
        self.pause = min(self.pause * 1.5, LONGEST_POLL_SECONDS)  # a thousand idle followers are cheap
        told = self._event.is_set()
        self._event.clear()
        return told


class Feed:
    """Wakes the followers of runs; safe from any event loop."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiters: dict[tuple[str, str], list[Waiter]] = {}

    def wake(self, workflow_id: str, run_id: str, *, at_rest: bool) -> None:
        """Tell followers that there are new events, and whether the run is at rest now."""
        with self._lock:
            waiters = list(self._waiters.get((workflow_id, run_id), ()))
        for waiter in waiters:
            if at_rest or not waiter.for_rest:
                waiter.wake()

    async def follow(
        self, storage: Storage, workflow_id: str, run_id: str, *, after: int = 0
    ) -> AsyncIterator[tuple[int, WorkflowEvent]]:
        """All events of a run after a sequence number, then new ones as they come; without end.

        Raises RunNotFoundError when the run was deleted meanwhile.
        """
        told, in_vain = False, 0
        with self.joined(workflow_id, run_id) as waiter:
            while True:
                events = await storage.read_events(workflow_id, run_id, after=after)
                for seq, event in events:
                    after, waiter.pause = seq, POLL_SECONDS
                    yield seq, event
                in_vain = 0 if events else in_vain + 1
                if not events and (told or in_vain % POLLS_A_LOOK == 0):
                    await _check_is_there(storage, workflow_id, run_id)
                told = await waiter.wait()

    @contextlib.contextmanager
    def joined(self, workflow_id: str, run_id: str, *, for_rest: bool = False) -> Generator[Waiter]:
        """One who is woken by what happens in a run; whoever looks first and waits then misses nothing."""
        waiter = Waiter(for_rest)
        with self._lock:
            self._waiters.setdefault((workflow_id, run_id), []).append(waiter)
        try:
            yield waiter
        finally:
            self._leave(workflow_id, run_id, waiter)

    def _leave(self, workflow_id: str, run_id: str, waiter: Waiter) -> None:
        with self._lock:
            left = [w for w in self._waiters.get((workflow_id, run_id), ()) if w is not waiter]
            if left:
                self._waiters[workflow_id, run_id] = left
            else:
                self._waiters.pop((workflow_id, run_id), None)


async def _check_is_there(storage: Storage, workflow_id: str, run_id: str) -> None:
    if await storage.get_status(workflow_id, run_id) is None:
        raise RunNotFoundError(workflow_id, run_id)
