"""Durable operations as steps of an Inngest function, through inngest-py.

Bodies run in line and are reported to the engine as they end; what only the engine can do (sleep, retry a
request) leaves the function by inngest-py's interrupts. This file and `branches` alone know those.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import inngest
import orjson
from inngest._internal.server_lib import Opcode
from inngest._internal.step_lib import ResponseInterrupt, StepInfo, StepResponse
from inngest._internal.types import EmptySentinel

from flowctl.clock import Clock
from flowctl.execution.ops import Memo
from flowctl.execution.part import not_run
from flowctl.runners.at_work import AtWork, Waits
from flowctl.runners.branches import Branches, Parked, current_arm, enter_main_arm, replayed
from flowctl.runners.checkpoints import Checkpoints, EndedStep, hashed
from flowctl.runners.limits import Budget, RollOver

if TYPE_CHECKING:
    from flowctl.workflow import Workflow

Body = Callable[[], Awaitable[Memo]]


@dataclass(slots=True)
class InngestOps:
    """Durable operations of one request. Their ids are the steps' ids.

    Unless they run in line, and from the moment that a checkpoint is not taken, there is a request for each.
    """

    ctx: inngest.Context
    memos: inngest.StepMemos
    clock: Clock
    budget: Budget
    checkpoints: Checkpoints
    in_line: bool
    may_roll_over: bool
    at_work: AtWork = field(default_factory=AtWork)
    _known: dict[str, Any] = field(default_factory=dict[str, Any])

    async def carry_out(self, walk: Coroutine[Any, Any, Any]) -> Any:
        """Run a walk until it ends or has to wait for the engine, which then has all that ended before."""
        enter_main_arm()
        try:
            return await walk
        except Waits as waits:
            interrupt = await self._sleeping(waits)
        except ResponseInterrupt as left:
            interrupt = left
        raise ResponseInterrupt([*await self._unposted(), *interrupt.responses])

    async def run(self, op: str, body: Body, *, repeatable: bool = False) -> Memo:
        """See DurableOps."""
        if self._remembers(op):
            return self._known[op]
        await current_arm().enter()
        if self.may_roll_over and self.budget.leg_is_spent:
            raise RollOver
        if not self.in_line:
            return await self.ctx.step.run(op, partial(self._sized, body))
        if self.budget.request_is_spent and not repeatable and not self._remembers(f"{op}.pause"):
            raise Waits(f"{op}.pause", self.clock.now())
        return await self._reported(op, body, repeatable=repeatable)

    async def sleep(self, op: str, until: int) -> None:
        """See DurableOps."""
        if self._remembers(op):
            return
        current_arm().note_begun()
        await current_arm().enter()
        if not self.in_line:
            await self._engine_sleep(op, until)
        elif not await self.at_work.sleep(self.clock, until):
            raise Waits(op, until)

    async def invoke(
        self,
        op: str,
        workflow: Workflow[Any, Any],
        *,
        ask: Callable[[], Memo],
        take: Callable[[Memo], None],
    ) -> Memo | None:
        """See DurableOps."""
        if not self._has_ended(op):
            await current_arm().enter()
            await self._engine_invoke(op, workflow, ask())
        answer = self._known[op]
        take(answer)
        if answer.get("isLong"):
            self.budget.steps = self.budget.limits.steps
            raise RollOver
        return answer

    def _has_ended(self, op: str) -> bool:
        """Whether an invocation was answered; one that the engine could not carry out is a failure."""
        try:
            return self._remembers(op)
        except inngest.StepError as err:
            self._known[op] = not_run(err.name, err.message)
            current_arm().note_begun()
            return True

    async def _engine_invoke(self, op: str, workflow: Workflow[Any, Any], asked: Memo) -> None:
        later = ".continue" if asked["part"]["continues"] else ""
        await self.ctx.step.invoke_by_id(
            op,
            app_id=self.checkpoints.api.client.app_id,
            function_id=f"workflow.{workflow.id}{later}",
            data=asked,
        )

    async def gather(
        self,
        thunks: Sequence[Callable[[], Awaitable[Any]]],
        *,
        limit: int | None = None,
        stops: Callable[[Any], bool] | None = None,
    ) -> list[Any]:
        """See DurableOps."""
        window = limit or max(1, len(thunks))
        if not self.in_line:
            return await self._one_by_one(thunks, window, stops)
        branches = Branches(thunks, window, self._draining(stops), self.at_work)
        may_roll_over = self.may_roll_over
        try:
            await branches.run()
        finally:
            self.may_roll_over = may_roll_over
        _leave(branches.parked)
        return branches.values

    def _draining(self, stops: Callable[[Any], bool] | None) -> Callable[[Any], bool]:
        """As `stops`; those that it leaves to end do so in this leg, since a new one would not know them."""

        def check(value: Any) -> bool:
            is_last = stops is not None and stops(value)
            self.may_roll_over = self.may_roll_over and not is_last
            return is_last

        return check

    def _remembers(self, op: str) -> bool:
        if op in self._known:
            return True
        memo = self.memos.pop(hashed(op))
        if isinstance(memo, EmptySentinel):
            return False
        if memo.error is not None:
            raise inngest.StepError(memo.error.message, memo.error.name, memo.error.stack)
        self._known[op] = memo.data
        current_arm().note_begun()
        return True

    async def _reported(self, op: str, body: Body, *, repeatable: bool) -> Memo:
        """Run a body in line; the engine has what it came to before anything else begins."""
        began = time.time_ns()
        memo = self._known[op] = await self._sized(body)
        self.checkpoints.waiting.append(EndedStep(op, memo, began, time.time_ns()))
        if not repeatable and not await self.checkpoints.post():
            self.in_line = False
            raise ResponseInterrupt([])
        return memo

    async def _sized(self, body: Body) -> Memo:
        """Run a body; what it came to is in storage, so a memo that is too large need not be sent."""
        memo = await body()
        self.budget.spend(len(orjson.dumps(memo)))
        if self.may_roll_over and self.budget.size >= self.budget.limits.size:
            raise RollOver
        return memo

    async def _engine_sleep(self, op: str, until: int) -> None:
        await self.ctx.step.sleep_until(op, datetime.fromtimestamp(until / 1000, UTC))

    async def _sleeping(self, waits: Waits) -> ResponseInterrupt:
        """What asks the engine to call again at a time."""
        try:
            await self._engine_sleep(waits.op, waits.until)
        except ResponseInterrupt as interrupt:
            return interrupt
        raise AssertionError(f"The engine has ended the sleep {waits.op!r} already.")

    async def _unposted(self) -> list[StepResponse]:
        if self.in_line and await self.checkpoints.post():
            return []
        return [_response(step) for step in self.checkpoints.waiting]

    async def _one_by_one(
        self,
        thunks: Sequence[Callable[[], Awaitable[Any]]],
        window: int,
        stops: Callable[[Any], bool] | None,
    ) -> list[Any]:
        values: list[list[Any]] = []

        async def branches() -> None:
            values.append(await replayed(thunks, window, stops))

        await self.ctx.group.parallel((branches,), parallel_mode=inngest.ParallelMode.RACE)
        return values[0]


def _leave(parked: Sequence[Parked]) -> None:
    """Leave the walk when a branch waits: for the next leg, for the engine, or for the earliest time.

    What was invoked has to end in this leg, and all of it before the next request: while one is under way,
    an end that comes in must not begin another beside it.
    """
    interrupts = [one for one in parked if isinstance(one, ResponseInterrupt)]
    found = [response for one in interrupts for response in one.responses]
    invoked = [response for response in found if response.step.op is Opcode.INVOKE]
    if any(isinstance(one, RollOver) for one in parked) and not invoked:
        raise RollOver
    if interrupts:
        for response in found:
            if response not in invoked:
                response.step.set_parallel_mode(inngest.ParallelMode.RACE)
        raise ResponseInterrupt(found)
    sleeping = [one for one in parked if isinstance(one, Waits)]
    if sleeping:
        raise min(sleeping, key=lambda one: one.until)


def _response(step: EndedStep) -> StepResponse:
    name = step.op
    info = StepInfo(display_name=name, id=hashed(name), name=name, op=Opcode.STEP_RUN)
    return StepResponse(output=step.memo, step=info)
