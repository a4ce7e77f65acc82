"""What time it is for the engine, and how it waits: an argument, so that tests may skip time.

Called by all that need the time of runs. How long a request takes, and pauses between tries inside the
engine, are no part of it: those are of the wall's time.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Protocol


def now_ms() -> int:
    """The wall clock's time, in epoch milliseconds."""
    return time.time_ns() // 1_000_000


class Clock(Protocol):
    """The engine's time, in epoch milliseconds."""

    def now(self) -> int:
        """The time that events, runs and jobs get."""
        ...

    async def wait(
        self, woken: asyncio.Event, due: int | None, *, certain: Callable[[], int | None], is_busy: bool
    ) -> None:
        """Return once `woken` is set, or it is the time when the next job is due (None: there is none).

        A clock that skips time goes on to the moment that `certain` tells: that of the next job which
        nothing but time brings about. While the engine `is_busy`, apps are at work.
        """
        ...


class SystemClock:
    """The clock on the wall."""

    def now(self) -> int:
        """See Clock."""
        return now_ms()

    async def wait(
        self, woken: asyncio.Event, due: int | None, *, certain: Callable[[], int | None], is_busy: bool
    ) -> None:
        """See Clock."""
        del certain, is_busy
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None if due is None else (due - now_ms()) / 1000):
                await woken.wait()
