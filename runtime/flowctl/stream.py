"""A run's events as a stream, and as the sign that a leg has ended.

Called by `run`; reads the events that the leg's bodies have stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any, Generic

from typing_extensions import TypeVar

from flowctl.events import CANCELED, FINISH, WorkflowEvent
from flowctl.result import RunResult
from flowctl.snapshot import ACTIVE, TERMINAL, RunStatus

if TYPE_CHECKING:
    from flowctl.run import Run
    from flowctl.runners.local import LocalLeg

Out = TypeVar("Out", default=Any)
_HIDDEN = frozenset({"workflow-step-finish"})


class LegEnd:
    """The end of leg `number`: awaited where it is driven `here`, else told by the run's later events."""

    def __init__(self, run: Run[Any], after: int, number: int, *, here: LocalLeg | None = None) -> None:
        self._run, self._after, self._number, self._here = run, after, number, here

    def __await__(self) -> Generator[Any, None, None]:
        return self._seen().__await__()

    async def _seen(self) -> None:
        run = self._run
        if self._here is not None:
            left_after = await self._here.ended()
            if left_after is None:
                return
            self._after = left_after
            await self._told()
            return
        told = asyncio.ensure_future(self._told())
        given_up = asyncio.ensure_future(run.app.inngest_runner.has_ended(run.workflow, run.run_id))
        try:
            await asyncio.wait({told, given_up}, return_when=asyncio.FIRST_COMPLETED)
            if not told.done() and given_up.exception() is None:
                await run.cancel()
            await told
        finally:
            told.cancel()
            given_up.cancel()

    async def _told(self) -> None:
        run = self._run
        with run.app.feed.joined(run.workflow_id, run.run_id, for_rest=True) as waiter:
            while not await self._has_ended():
                await waiter.wait()

    async def _has_ended(self) -> bool:
        """Events are read only when the run rests or has another leg: this one may have ended in between."""
        run, storage = (self._run.workflow_id, self._run.run_id), self._run.app.storage
        status, number = await storage.get_status(*run) or ("deleted", self._number)
        if number == self._number and status in ACTIVE | TERMINAL:
            return status in TERMINAL
        events = await storage.read_events(*run, after=self._after)
        self._after, self._number = events[-1][0] if events else self._after, number
        return status == "deleted" or any(event.type in {FINISH, CANCELED} for _, event in events)


async def last_event(run: Run[Any]) -> int:
    """The number of the run's newest event, 0 when there is none."""
    known = await run.app.storage.read_events(run.workflow_id, run.run_id)
    return known[-1][0] if known else 0


class RunStream(Generic[Out]):
    """A run's events as an async iterable; `result()` waits for the end, `status` says where it stands.

        stream = run.stream({"value": 5})
        async for event in stream:
            print(event.type, event.payload.get("id"))
        result = await stream.result()

    It begins when it is first iterated or awaited, and may be iterated again: events are read from storage.
    Iterating raises what `start` or `resume` would.
    """

    def __init__(
        self, run: Run[Out], begin: Callable[[], Awaitable[None]] | None, *, close_on_suspend: bool
    ) -> None:
        self._run, self._begin, self._close_on_suspend = run, begin, close_on_suspend
        self._first: asyncio.Future[int] | None = None
        self.status: RunStatus = "running"

    async def __aiter__(self) -> AsyncIterator[WorkflowEvent]:
        async for _, event in self.numbered():
            yield event

    async def numbered(self, after: int | None = None) -> AsyncIterator[tuple[int, WorkflowEvent]]:
        """The events with their numbers; after one that was seen before, if it is given."""
        begun = await self.begun()
        app, workflow_id, run_id = self._run.app, self._run.workflow_id, self._run.run_id
        after = begun if after is None else after
        async for number, event in app.feed.follow(app.storage, workflow_id, run_id, after=after):
            if event.type in _HIDDEN:
                continue
            yield number, event
            if self._ends(event) and await self._is_last(number):
                return

    async def result(self) -> RunResult[Out]:
        """Where the run stands at the end of the stream; raises what `start` or `resume` would."""
        async for _ in self:
            pass
        return await self._run._result()  # noqa: SLF001 - a stream is part of its run  # pyright: ignore[reportPrivateUsage]

    async def begun(self) -> int:
        """Begin, once; raises what `start` or `resume` would. Answers the event number before the first."""
        if self._first is None:
            self._first = asyncio.ensure_future(self._start())
        return await asyncio.shield(self._first)

    def taken_up(self, after: int) -> None:
        """Go on after an event that was seen before, and begin nothing."""
        self._first = asyncio.get_running_loop().create_future()
        self._first.set_result(after)

    async def _start(self) -> int:
        if self._begin is None:
            await self._run.app.opened()
            return 0
        seen = await last_event(self._run)
        await self._begin()
        return seen

    async def _is_last(self, number: int) -> bool:
        """An observed run may have gone on after an end, by a time travel."""
        if self._begin is not None:
            return True
        run = self._run
        later = await run.app.storage.read_events(run.workflow_id, run.run_id, after=number)
        return all(event.type in _HIDDEN for _, event in later)

    def _ends(self, event: WorkflowEvent) -> bool:
        if event.type == CANCELED:
            self.status = "canceled"
            return True
        if event.type != FINISH:
            return False
        self.status = event.payload["workflowStatus"]
        return self._close_on_suspend or self.status in TERMINAL
