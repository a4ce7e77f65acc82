"""Following a run's events: woken at once inside the process, by a short poll across processes.

Events live in storage, so a late subscriber gets all of them; this file only wakes those who wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator

from flowctl.errors import RunNotFoundError
from flowctl.events import WorkflowEvent
from flowctl.storage.base import Storage

POLL_SECONDS, LONGEST_POLL_SECONDS = 0.2, 1.0
POLLS_A_LOOK = 4  # in vain, after which the run itself is looked for

_Waiter = tuple[asyncio.AbstractEventLoop, asyncio.Event]


class Feed:
    """Wakes the followers of runs; safe from any loop and thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiters: dict[tuple[str, str], list[_Waiter]] = {}

    def wake(self, workflow_id: str, run_id: str) -> None:
        """Tell followers that there are new events."""
        with self._lock:
            waiters = list(self._waiters.get((workflow_id, run_id), ()))
        for loop, event in waiters:
            if not loop.is_closed():
                loop.call_soon_threadsafe(event.set)

    async def follow(
        self, storage: Storage, workflow_id: str, run_id: str, *, after: int = 0
    ) -> AsyncIterator[tuple[int, WorkflowEvent]]:
        """All events of a run after a sequence number, then new ones as they come; without end.

        Raises RunNotFoundError when the run was deleted meanwhile.
        """
        waiter, pause, polls = self._join(workflow_id, run_id), POLL_SECONDS, 0
        try:
            while True:
                woken = waiter[1].is_set()
                waiter[1].clear()
                for seq, event in await storage.read_events(workflow_id, run_id, after=after):
                    after, pause, woken, polls = seq, POLL_SECONDS, False, 0
                    yield seq, event
                if woken or polls == POLLS_A_LOOK:
                    await _check_is_there(storage, workflow_id, run_id)
                    polls = 0
                polls += 1
                # not wait_for, which on Python 3.11 forgets a cancellation that comes as the event is set
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await waiter[1].wait()
                pause = min(pause * 1.5, LONGEST_POLL_SECONDS)  # a thousand idle followers are cheap
        finally:
            self._leave(workflow_id, run_id, waiter)

    def _join(self, workflow_id: str, run_id: str) -> _Waiter:
        waiter = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._waiters.setdefault((workflow_id, run_id), []).append(waiter)
        return waiter

    def _leave(self, workflow_id: str, run_id: str, waiter: _Waiter) -> None:
        with self._lock:
            left = [w for w in self._waiters.get((workflow_id, run_id), ()) if w is not waiter]
            if left:
                self._waiters[workflow_id, run_id] = left
            else:
                self._waiters.pop((workflow_id, run_id), None)


async def _check_is_there(storage: Storage, workflow_id: str, run_id: str) -> None:
    if await storage.get_status(workflow_id, run_id) is None:
        raise RunNotFoundError(workflow_id, run_id)
