"""Durable operations as steps of an Inngest function, through inngest-py.

Bodies run in line and are reported to the engine as they end; what only the engine can do (sleep, retry a
request) leaves the function by inngest-py's interrupts. This file and `branches` alone know those.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import inngest
import orjson
from inngest._internal.server_lib import Opcode
from inngest._internal.step_lib import ResponseInterrupt, SkipInterrupt, StepInfo, StepResponse
from inngest._internal.types import EmptySentinel

from flowctl.clock import Clock
from flowctl.errors import EngineError
from flowctl.execution.ops import Memo
from flowctl.execution.part import failure
from flowctl.runners.at_work import AtWork, Waits
from flowctl.runners.branches import Branches, Parked, current_arm, enter_main_arm, replayed
from flowctl.runners.checkpoints import Checkpoints, EndedStep, hashed
from flowctl.runners.limits import Budget, RollOver
from flowctl.runners.lines import Lines
from flowctl.runners.turns import FIRST_MARK, Turns
from flowctl.storage.base import Storage, Turn

if TYPE_CHECKING:
    from flowctl.workflow import Workflow

Body = Callable[[], Awaitable[Memo]]
SLICE_SECONDS = 0.003
"""After so long without a pause a request whose steps never wait lets others go on."""


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
    in_line: bool = False
    may_roll_over: bool = False
    at_work: AtWork = field(default_factory=AtWork)
    turns: Turns | None = None
    lines: Lines = field(default_factory=Lines)
    _in_branches: bool = False
    _known: dict[str, Any] = field(default_factory=dict[str, Any])
    _gave_way: float = field(default_factory=time.monotonic)

    async def carry_out(self, walk: Coroutine[Any, Any, Any]) -> Any:
        """Run a walk until it ends or has to wait for the engine, which then has all that ended before."""
        enter_main_arm()
        try:
            return await self._carried_out(walk)
        finally:
            self.checkpoints.close()

    async def _carried_out(self, walk: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await self._reporting(walk)
        except Waits as waits:
            asked = [await self._sleeping(waits)]
        except ResponseInterrupt as left:
            asked = left.responses
        asked = await self._side_by_side(asked)
        raise ResponseInterrupt([*await self._unposted(), *asked])

    async def _reporting(self, walk: Coroutine[Any, Any, Any]) -> Any:
        """Run a walk; at its end the engine has its steps."""
        try:
            answer = await walk
        except inngest.NonRetriableError:
            await self.checkpoints.settled()
            raise
        self._expect(await self.checkpoints.settled())
        return answer

    def take_turns(
        self, storage: Storage, workflow_id: str, run_id: str, take_up: Callable[[], Awaitable[None]]
    ) -> None:
        """Let what was invoked end one by one: the requests that these ends make take turns for a run.

        `take_up` is awaited before anything new begins here, and ends an older request that is alive still.
        """
        call = self.checkpoints.call
        if self.in_line and call is not None and call.queue_item:
            turn = Turn(workflow_id, run_id, call.run_id, call.queue_item)
            are_taken = self.brings(FIRST_MARK)
            self.turns = Turns(storage, turn, call.request_id, self.clock, self.brings, are_taken, take_up)

    async def run(
        self,
        op: str,
        body: Body,
        *,
        repeatable: bool = False,
        key: str | None = None,
        carries: bool = False,
        kept: Callable[[], Awaitable[Mapping[str, Any] | None]] | None = None,
    ) -> Memo:
        """See DurableOps."""
        if self._remembers(op):
            self.lines.remember(op)
            self.budget.goes_on = True
            return self._known[op]
        await self._let_in()
        if self.may_roll_over and self._is_spent and (kept is None or await kept() is None):
            raise RollOver  # what has ended belongs to this leg: the next one would not know what it changed
        counted = partial(self._counted, body, is_kept=kept is not None)
        return await self._first_time(op, counted, repeatable=repeatable, key=key, carries=carries)

    async def plan(self, op: str, body: Body, *, repeatable: bool = False) -> Memo:
        """As `run`, for what comes before the walk: no leg ends by it, or goes on by it."""
        if self._remembers(op):
            return self._known[op]
        await self._let_in()
        return await self._first_time(op, body, repeatable=repeatable)

    async def _first_time(
        self, op: str, body: Body, *, repeatable: bool, key: str | None = None, carries: bool = False
    ) -> Memo:
        if not self.in_line:
            return await self.ctx.step.run(op, body)
        if self.budget.request_is_spent and not repeatable and not self._remembers(f"{op}.pause"):
            raise Waits(f"{op}.pause", self.clock.now())
        self._expect(await self.checkpoints.may_begin(key, carries=carries))
        return await self._reported(op, body, repeatable=repeatable, key=key)

    def unremembered(self, key: str) -> Mapping[str, Memo]:
        """See DurableOps."""
        return {step.op: step.memo for step in self.checkpoints.unreported(key)}

    @property
    def _is_spent(self) -> bool:
        """Whether nothing more should begin here in this leg."""
        return self.lines.is_spent if self._in_branches else self.budget.leg_is_spent

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
        self.lines.remember(op)
        answer = self._known[op]
        take(answer)
        if answer.get("isLong"):
            await self._let_in()
            self.budget.end()
            raise RollOver
        return answer

    def _has_ended(self, op: str) -> bool:
        """Whether an invocation was answered; one that the engine could not carry out is a failure."""
        try:
            return self._remembers(op)
        except inngest.StepError as err:
            self._known[op] = failure(err.name, err.message)
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
        await self._leave(branches.parked)
        return branches.values

    async def _let_in(self) -> None:
        """Before anything that is not remembered: this arm may begin it, and so may this request."""
        await current_arm().enter()
        if self.turns is not None:
            await self.turns.take()

    def _draining(self, stops: Callable[[Any], bool] | None) -> Callable[[Any], bool]:
        """As `stops`; those that it leaves to end do so in this leg, since a new one would not know them."""

        def check(value: Any) -> bool:
            is_last = stops is not None and stops(value)
            self.may_roll_over = self.may_roll_over and not is_last
            return is_last

        return check

    def brings(self, mark: str) -> bool:
        """Whether the request brings a mark of `turns`."""
        if mark not in self._known and not isinstance(self.memos.pop(hashed(mark)), EmptySentinel):
            self._known[mark] = {}
        return mark in self._known

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

    async def _reported(self, op: str, body: Body, *, repeatable: bool, key: str | None) -> Memo:
        """Run a body in line; what it came to is reported before anything else begins, if not in a crowd."""
        began, size = time.time_ns(), self.budget.size
        memo = self._known[op] = await body()
        ended = EndedStep(op, memo, began, time.time_ns(), key, self.budget.size - size)
        self.checkpoints.waiting.append(ended)
        if not repeatable:
            self._expect(await (self.checkpoints.report() if key else self.checkpoints.post()))
            await self._give_way()
        return memo

    def _expect(self, taken: bool) -> None:
        """Leave the walk when the engine does not take reports: the answer has what it lacks."""
        if not taken:
            self.in_line = False
            raise ResponseInterrupt([])

    async def _give_way(self) -> None:
        """Let other runs go on, should steps that never wait have kept them from it for a while."""
        if time.monotonic() - self._gave_way >= SLICE_SECONDS:
            await asyncio.sleep(0)
            self._gave_way = time.monotonic()

    async def _counted(self, body: Body, *, is_kept: bool) -> Memo:
        """Run a body; where its end is kept in a record, a memo that is too large need not be sent."""
        memo = await body()
        self.budget.spend(len(orjson.dumps(memo)))
        if is_kept and self.may_roll_over and self.budget.size >= self.budget.limits.size:
            raise RollOver
        return memo

    async def _engine_sleep(self, op: str, until: int) -> None:
        await self.ctx.step.sleep_until(op, datetime.fromtimestamp(until / 1000, UTC))

    async def _sleeping(self, waits: Waits) -> StepResponse:
        """What asks the engine to call again at a time."""
        try:
            await self._engine_sleep(waits.op, waits.until)
        except ResponseInterrupt as interrupt:
            return interrupt.responses[0]
        raise AssertionError(f"The engine has ended the sleep {waits.op!r} already.")

    async def _leave(self, parked: Sequence[Parked]) -> None:
        """Leave the walk when a branch waits: for the next leg, for the engine, or for the earliest time.

        What was invoked has to end in this leg.
        """
        interrupts = [one for one in parked if isinstance(one, ResponseInterrupt)]
        asked = [response for one in interrupts for response in one.responses]
        if any(isinstance(one, RollOver) for one in parked) and not asked:
            raise RollOver
        earliest = min((one for one in parked if isinstance(one, Waits)), key=_time_of, default=None)
        if interrupts:
            sleeping = [await self._sleeping(earliest)] if earliest is not None and self.turns else []
            raise ResponseInterrupt([*asked, *sleeping])
        if earliest is not None:
            raise earliest

    async def _side_by_side(self, asked: list[StepResponse]) -> list[StepResponse]:
        """What the engine is asked for, so that it calls again at each end, if requests can take turns.

        If not, all that was invoked has to end before the next request: while one is under way, an end that
        comes in must not begin another beside it.
        """
        if self.turns is None:
            return asked
        with contextlib.suppress(Waits):  # what has nothing to do may repeat a request that died in its turn
            await self.turns.take()
        if self.turns.late is not None:
            asked = [await self._sleeping(self.turns.late)]
        elif not await self._passed_on(self.turns, asked):
            return [response for response in asked if response.step.op is Opcode.INVOKE] or asked
        for response in asked:
            response.step.set_parallel_mode(inngest.ParallelMode.RACE)
        return asked

    async def _passed_on(self, turns: Turns, asked: Sequence[StepResponse]) -> bool:
        """End this request's turn, or the time before there were any; False if there are none yet.

        Raises EngineError when the engine does not take what others wait for: it is to repeat this request.
        """
        is_several = len(asked) > 1 and any(response.step.op is Opcode.INVOKE for response in asked)
        if not (turns.are_taken or is_several):
            return False
        mark, now = turns.mark(), time.time_ns()
        self.checkpoints.waiting.append(EndedStep(mark, {}, now, now))
        if self.in_line and await self.checkpoints.post():
            await turns.pass_on(mark)
            return True
        self.checkpoints.waiting.pop()
        if turns.are_taken:
            raise EngineError("The engine does not take the steps of a request that others wait for.")
        return False

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
        lines, around = self.lines.beginning_here(thunks), self._in_branches

        async def branches() -> list[Any] | SkipInterrupt:
            try:
                return await replayed(lines, window, stops)
            except SkipInterrupt as skip:  # the group would go on without the values, to whatever follows it
                return skip

        self._in_branches = True
        [values] = await self.ctx.group.parallel((branches,), parallel_mode=inngest.ParallelMode.RACE)
        self._in_branches = around
        if isinstance(values, SkipInterrupt):
            raise values
        return values


def _time_of(waits: Waits) -> int:
    return waits.until


def _response(step: EndedStep) -> StepResponse:
    name = step.op
    info = StepInfo(display_name=name, id=hashed(name), name=name, op=Opcode.STEP_RUN)
    return StepResponse(output=step.memo, step=info)
