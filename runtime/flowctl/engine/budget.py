"""A bound on bytes in memory: who needs many waits until others have given theirs back, in turn.

Called by `executor` for what it sends to apps, by `transport` for what they answer, and by `answers` for
what is sent to the engine.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

SMALL = 64 * 2**10
"""What is smaller is not counted: a number of such things is bounded by their count."""


@dataclass(slots=True)
class ByteBudget:
    """`bound` bytes for all leases together; what alone exceeds that is let in when nothing else is."""

    bound: int
    held: int = 0
    _waiting: deque[tuple[Lease, int, asyncio.Future[None]]] = field(
        default_factory=deque[tuple["Lease", int, asyncio.Future[None]]]
    )

    def lease(self) -> Lease:
        """Nothing yet: `with budget.lease() as lease`."""
        return Lease(self)

    def has_room(self, more: int) -> bool:
        """Whether so many bytes may be held beside the others."""
        return more <= 0 or self.held + more <= self.bound or self.held == 0

    def let_in(self) -> None:
        """Give those who wait what is free, in the order of their coming."""
        while self._waiting and (self._waiting[0][2].done() or self.has_room(self._waiting[0][1])):
            lease, size, granted = self._waiting.popleft()
            if not granted.done():  # nobody has given up waiting
                lease.take(size)
                granted.set_result(None)

    def queue(self, lease: Lease, size: int) -> asyncio.Future[None]:
        """Done once a lease holds so many bytes."""
        granted = asyncio.get_running_loop().create_future()
        self._waiting.append((lease, size, granted))
        self.let_in()
        return granted

    @property
    def is_waited_for(self) -> bool:
        """Whether somebody waits."""
        return bool(self._waiting)


@dataclass(slots=True)
class Lease:
    """What one holds of a budget."""

    budget: ByteBudget
    size: int = 0

    def resize(self, size: int) -> bool:
        """Hold so many bytes instead, if that can be had at once."""
        wanted = 0 if size < SMALL else size
        more = wanted - self.size
        if more > 0 and (self.budget.is_waited_for or not self.budget.has_room(more)):
            return False
        self.take(more)
        if more < 0:
            self.budget.let_in()
        return True

    async def wait(self, size: int) -> None:
        """Hold so many bytes instead, once they are free; those held are given back meanwhile."""
        self.resize(0)
        await self.budget.queue(self, size)

    async def hold(self, size: int) -> None:
        """Hold so many bytes instead, at once if that can be had."""
        if not self.resize(size):
            await self.wait(size)

    def take(self, more: int) -> None:
        """Hold so many bytes more."""
        self.size += more
        self.budget.held += more

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.resize(0)
