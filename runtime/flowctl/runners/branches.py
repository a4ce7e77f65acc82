"""Branches that run at once in one request.

What is remembered of them is replayed first, in order, so that those that had begun go on and no other
begins in their place; then all run concurrently. A branch that has to wait for the engine parks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from inngest._internal.server_lib import Opcode
from inngest._internal.step_lib import ResponseInterrupt, SkipInterrupt

from flowctl.runners.at_work import AtWork, Waits
from flowctl.runners.limits import RollOver

Thunk = Callable[[], Awaitable[Any]]
Parked = ResponseInterrupt | RollOver | Waits


@dataclass(slots=True, eq=False)
class Arm:
    """A line of operations: replayed as far as it is remembered, held there until it is let in."""

    outer: Arm | None = None
    has_begun: bool = False
    is_new: bool = False
    has_ended: bool = False
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    admitted: asyncio.Event = field(default_factory=asyncio.Event)

    def note_begun(self) -> None:
        """An operation of this arm, and so of those around it, is remembered."""
        arm: Arm | None = self
        while arm is not None and not arm.has_begun:
            arm.has_begun = True
            arm = arm.outer

    async def enter(self) -> None:
        """Wait to be let in, before the first operation that is not remembered."""
        if self.is_new:
            return
        self.reached.set()
        await self.admitted.wait()
        self.is_new = True


def main_arm() -> Arm:
    """The line of operations outside all branches: nothing holds it."""
    arm = Arm()
    arm.admitted.set()
    return arm


_current: ContextVar[Arm] = ContextVar("flowctl_arm")


def enter_main_arm() -> None:
    """Begin a walk in this context."""
    _current.set(main_arm())


def current_arm() -> Arm:
    """The arm that this code belongs to."""
    return _current.get()


@dataclass(slots=True)
class Branches:
    """The branches of one gather, at most `limit` at a time."""

    thunks: Sequence[Thunk]
    limit: int
    stops: Callable[[Any], bool]
    at_work: AtWork
    values: list[Any] = field(default_factory=list[Any])
    parked: list[Parked] = field(default_factory=list[Parked])
    is_stopped: bool = False
    next: int = 0

    async def run(self) -> None:
        """Run all to their ends, or until each that has begun has parked."""
        self.values = [None] * len(self.thunks)
        outer, held = current_arm(), list[tuple[Arm, asyncio.Task[bool]]]()
        try:
            if not outer.is_new:
                await self._replay(outer, held)
            if not held and not self._has_more:
                return
            await outer.enter()
            places = min(self.limit - len(held), len(self.thunks) - self.next)
            await self._all([*(self._let_in(*pair) for pair in held), *(self._work() for _ in range(places))])
        finally:
            await _cancel([task for _, task in held])

    async def _replay(self, outer: Arm, held: list[tuple[Arm, asyncio.Task[bool]]]) -> None:
        """Bring the branches that had begun to where they stand, and hold them there."""
        while self.next < len(self.thunks) and len(held) < self.limit:
            arm = Arm(outer)
            task = asyncio.create_task(self._held(self._take(), arm))
            held.append((arm, task))
            await arm.reached.wait()
            if arm.has_ended:
                held.pop()
                await task
            elif not arm.has_begun:
                if self.is_stopped:
                    await _cancel([held.pop()[1]])
                return

    async def _all(self, lines: Sequence[Coroutine[Any, Any, None]]) -> None:
        """All at once; when one raises, the others are cancelled. The last one's work is the outer arm's."""
        self.at_work.begin(len(lines) - 1)
        left = len(lines)

        async def at_work(line: Coroutine[Any, Any, None]) -> None:
            nonlocal left
            try:
                await line
            finally:
                left -= 1
                if left:
                    self.at_work.end()

        tasks = [asyncio.create_task(at_work(line)) for line in lines]
        try:
            await asyncio.gather(*tasks)
        finally:
            await _cancel(tasks)

    async def _held(self, index: int, arm: Arm) -> bool:
        _current.set(arm)
        try:
            return await self._branch(index)
        finally:
            arm.has_ended = True
            arm.reached.set()

    async def _let_in(self, arm: Arm, task: asyncio.Task[bool]) -> None:
        arm.admitted.set()
        if await task:
            await self._work()

    async def _work(self) -> None:
        while self._has_more:
            if not await self._branch(self._take()):
                return

    async def _branch(self, index: int) -> bool:
        """One branch; whether its place is free again: one that parks keeps it."""
        try:
            value = self.values[index] = await self.thunks[index]()
        except (ResponseInterrupt, RollOver, Waits) as interrupt:
            self.parked.append(interrupt)
            return False
        self.is_stopped = self.stops(value) or self.is_stopped
        return True

    @property
    def _has_more(self) -> bool:
        return not self.is_stopped and self.next < len(self.thunks)

    def _take(self) -> int:
        self.next += 1
        return self.next - 1


async def _cancel(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def replayed(thunks: Sequence[Thunk], limit: int, stops: Callable[[Any], bool] | None) -> list[Any]:
    """Replay every branch as far as it has come; leave by the interrupt when one has not ended.

    For requests that run at most one body. Within `limit` of a branch that stops the others, branches may
    have begun, so those are waited for.
    """
    values: list[Any] = [None] * len(thunks)
    horizon, left = len(thunks), _Left()
    for index, thunk in enumerate(thunks):
        if left.places >= limit or (index >= horizon and not left.skipped):
            break
        if await left.ended(index, thunk, values) and stops is not None and stops(values[index]):
            horizon = min(horizon, index + limit)
    left.leave(horizon)
    return values


@dataclass(slots=True)
class _Left:
    """What the branches that have not ended left by: they ask for something, or for nothing in this leg.

    Those that a request for one step is not for are skipped.
    """

    asking: list[ResponseInterrupt] = field(default_factory=list[ResponseInterrupt])
    spent: int = 0
    skipped: dict[int, SkipInterrupt] = field(default_factory=dict[int, SkipInterrupt])

    @property
    def places(self) -> int:
        """How many branches are under way."""
        return len(self.asking) + self.spent

    async def ended(self, index: int, thunk: Thunk, values: list[Any]) -> bool:
        """Whether a branch has, and with which value."""
        try:
            values[index] = await thunk()
        except ResponseInterrupt as interrupt:
            self.asking.append(interrupt)
        except RollOver:
            self.spent += 1
        except SkipInterrupt as skip:
            self.skipped[index] = skip
        else:
            return True
        return False

    def leave(self, horizon: int) -> None:
        """Leave the walk unless all have ended: for the next leg, once what is asked for is only sleeps."""
        asked = [response for interrupt in self.asking for response in interrupt.responses]
        if self.spent and not self.skipped and all(r.step.op is Opcode.SLEEP for r in asked):
            raise RollOver
        if self.asking:
            raise ResponseInterrupt(asked)
        for index, skip in self.skipped.items():
            if index < horizon:
                raise skip
