"""Whose turn it is among the requests of one function run, where several may be under way.

So it is once the engine was asked for several things whose ends do not wait for each other: each end makes a
request, and an engine may make two at once. One of them acts; another is answered by a short sleep, after
which the engine calls again. Who has acted leaves a mark among the run's steps: a request that does not bring
the newest mark was sent too early to know what was done, and comes again, too. Called by `inngest_ops`.

Who acts is known by the job of the engine's queue, so a request that is repeated, its worker lost, acts on.
The one it repeats may be alive still: before a request acts it takes the run up, and so ends any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count

from flowctl.clock import Clock
from flowctl.runners.at_work import Waits
from flowctl.storage.base import Acting, Storage, Turn

SHORTEST_MS, LONGEST_MS = 50, 30_000
FIRST_MARK = "turn.1"


@dataclass(slots=True)
class Turns:
    """The turn of one request; `are_taken` from the first mark on, and before it any request may act.

    `take_up` is what it does before it acts. One that is not to act has `late`: when it is to come again.
    """

    storage: Storage
    turn: Turn
    request_id: str
    clock: Clock
    remembers: Callable[[str], bool]
    are_taken: bool
    take_up: Callable[[], Awaitable[None]]
    late: Waits | None = None
    _acting: Acting | None = None
    _acts: bool = False
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def take(self) -> None:
        """Act from now on; where turns are taken, raises Waits when the request has to come again."""
        if self._acts:
            return
        async with self._lock:
            if not self._acts and self.late is None:
                await self._begin()
        if self.late is not None:
            raise self.late

    async def _begin(self) -> None:
        if self.are_taken:
            await self._take()
        if self.late is None:
            await self.take_up()
            self._acts = True

    def mark(self) -> str:
        """The step that says that this turn is over."""
        passed = self._acting.passed if self._acting else 0
        return next(mark for number in count(passed + 1) if not self.remembers(mark := _mark(number)))

    async def pass_on(self, mark: str) -> None:
        """Act no longer: the engine has all that was done, and the mark."""
        if self._acting is not None:
            await self.storage.pass_turn(self.turn, passed=int(mark.rpartition(".")[2]))
        self._acting, self._acts, self.are_taken = None, False, True

    async def _take(self) -> None:
        now = self.clock.now()
        acting = await self.storage.take_turn(self.turn, now=now)
        if acting.request != self.turn.request:
            self._come_again(now, now - acting.since)
        elif acting.passed and not self.remembers(_mark(acting.passed)):
            await self.storage.pass_turn(self.turn, passed=acting.passed)
            self._come_again(now, SHORTEST_MS)
        else:
            self._acting = acting

    def _come_again(self, now: int, wait: int) -> None:
        """The longer another one has been acting, the later."""
        until = now + min(max(wait, SHORTEST_MS), LONGEST_MS)
        self.late = Waits(f"turn.again.{self.request_id}", until)


def _mark(number: int) -> str:
    return f"turn.{number}"
