"""What time it is for a run, and how it waits: an argument of the app, so that tests may skip sleeps.

Called by `run` and `runners`. Leases are no part of it: whether a process lives is told by the wall clock.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from flowctl.engine import timing
from flowctl.engine.timing import now_ms

__all__ = ["Clock", "SystemClock", "now_ms"]


class Clock(timing.Clock, Protocol):
    """The time of runs, in epoch milliseconds; and of the embedded engine that tests give them."""

    async def sleep_until(self, until: int) -> None:
        """Return once it is that time: a sleep of the local engine."""
        ...


class SystemClock(timing.SystemClock):
    """The clock on the wall."""

    async def sleep_until(self, until: int) -> None:
        """See Clock."""
        while (left := until - now_ms()) > 0:  # noqa: ASYNC110 - waits for a time, not for another task
            await asyncio.sleep(left / 1000)
