"""Durable operations as steps of an Inngest function, through inngest-py.

The only file that knows the interrupts by which its steps leave a function.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import inngest
from inngest._internal.step_lib import ResponseInterrupt, SkipInterrupt

from flowctl.clock import Clock
from flowctl.execution.ops import Memo


@dataclass(slots=True)
class InngestOps:
    """Durable operations as steps of an Inngest function; their ids are the operations' ids."""

    ctx: inngest.Context
    run_body: Callable[[Callable[[], Awaitable[Memo]]], Awaitable[Memo]]
    clock: Clock

    async def run(self, op: str, body: Callable[[], Awaitable[Memo]]) -> Memo:
        """See DurableOps."""
        return await self.ctx.step.run(op, partial(self.run_body, body))

    async def sleep(self, op: str, until: int) -> None:
        """See DurableOps."""
        await self.ctx.step.sleep_until(op, datetime.fromtimestamp(self.clock.wall_time(until) / 1000, UTC))

    async def gather(
        self,
        thunks: Sequence[Callable[[], Awaitable[Any]]],
        *,
        limit: int | None = None,
        stops: Callable[[Any], bool] | None = None,
    ) -> list[Any]:
        """See DurableOps."""
        values: list[list[Any]] = []

        async def branches() -> None:
            values.append(await _branches(thunks, limit or len(thunks), stops))

        await self.ctx.group.parallel((branches,), parallel_mode=inngest.ParallelMode.RACE)
        return values[0]


async def _branches(
    thunks: Sequence[Callable[[], Awaitable[Any]]], limit: int, stops: Callable[[Any], bool] | None
) -> list[Any]:
    """Replay every branch as far as it has come; leave by the interrupt when one has not ended.

    A branch interrupts with what it waits for, or is skipped when the request is for another one. Within
    `limit` of a branch that stops the others, branches may have begun, so those are waited for.
    """
    values: list[Any] = [None] * len(thunks)
    horizon, planned, skipped = len(thunks), list[Any](), dict[int, SkipInterrupt]()
    for index, thunk in enumerate(thunks):
        if len(planned) >= limit or (index >= horizon and not skipped):
            break
        try:
            values[index] = await thunk()
        except ResponseInterrupt as interrupt:
            planned.append(interrupt.responses)
        except SkipInterrupt as skip:
            skipped[index] = skip
        else:
            if stops is not None and stops(values[index]):
                horizon = min(horizon, index + limit)
    if planned:
        raise ResponseInterrupt([response for responses in planned for response in responses])
    for index, skip in skipped.items():
        if index < horizon:
            raise skip
    return values
