"""What time it is for a run, and how it waits: an argument of the app, so that tests may skip sleeps.

Called by `run` and `runners`. Leases are no part of it: whether a process lives is told by the wall clock.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """The time of runs, in epoch milliseconds."""

    def now(self) -> int:
        """The time that records, events and runs get."""
        ...

    async def sleep_until(self, until: int) -> None:
        """Return once it is that time: a sleep of the local engine."""
        ...

    def wall_time(self, until: int) -> int:
        """When, by the wall clock, an Inngest engine is to end a sleep until that time.

        May be called several times for one sleep, as a replayed function does.
        """
        ...


def now_ms() -> int:
    """The wall clock's time, in epoch milliseconds."""
    return time.time_ns() // 1_000_000


class SystemClock:
    """The clock on the wall."""

    def now(self) -> int:
        """See Clock."""
        return now_ms()

    async def sleep_until(self, until: int) -> None:
        """See Clock."""
        while (left := until - now_ms()) > 0:  # noqa: ASYNC110 - waits for a time, not for another task
            await asyncio.sleep(left / 1000)

    def wall_time(self, until: int) -> int:
        """See Clock."""
        return until
