"""Which arms of a request are at work, and how the others sleep meanwhile.

An arm sleeps in the process as long as another one is at work; once none is, all leave the walk, and the
engine is asked to call again at the earliest time. So a request is never kept open only to wait.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from flowctl.clock import Clock


class Waits(BaseException):
    """Nothing is to be done before a time (epoch ms): leaves the walk, as inngest-py's interrupts do."""

    def __init__(self, op: str, until: int) -> None:
        super().__init__(op, until)
        self.op, self.until = op, until


@dataclass(slots=True)
class AtWork:
    """How many arms are at work: at first the one outside all branches."""

    count: int = 1
    _sleeping: set[asyncio.Future[None]] = field(default_factory=set[asyncio.Future[None]])

    def begin(self, arms: int = 1) -> None:
        """These are at work from now on."""
        self.count += arms

    def end(self) -> None:
        """One is at work no longer."""
        self.count -= 1
        if self.count == 0:
            for told in self._sleeping:
                if not told.done():
                    told.set_result(None)

    async def sleep(self, clock: Clock, until: int) -> bool:
        """Whether it is that time now; False as soon as no arm is at work before it is."""
        if clock.now() >= until:
            return True
        self.end()
        try:
            return self.count > 0 and await self._slept(clock, until)
        finally:
            self.begin()

    async def _slept(self, clock: Clock, until: int) -> bool:
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        sleeping = asyncio.ensure_future(clock.sleep_until(until))
        self._sleeping.add(told)
        try:
            await asyncio.wait((told, sleeping), return_when=asyncio.FIRST_COMPLETED)
            return sleeping.done()
        finally:
            self._sleeping.discard(told)
            sleeping.cancel()
