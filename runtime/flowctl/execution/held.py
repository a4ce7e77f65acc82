"""Beginnings that wait a moment for company: most steps end before anyone needs to be told that they began.

Called by `walk`, inside the bodies of operations only. What is held goes into the next commit, or into one of
its own when none comes; a process that dies meanwhile leaves a step that has not begun, to run as any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from flowctl.events import WorkflowEvent
from flowctl.storage.base import RecordWrite

HOLD_SECONDS = 0.005
Events = Sequence[tuple[str, WorkflowEvent]]


@dataclass(slots=True)
class Held:
    """Records and events of one leg that are not committed yet."""

    records: dict[str, RecordWrite | None] = field(default_factory=dict[str, RecordWrite | None])
    events: list[tuple[str, WorkflowEvent]] = field(default_factory=list[tuple[str, WorkflowEvent]])
    _timer: asyncio.TimerHandle | None = None
    _flushing: asyncio.Future[None] | None = None

    def add(
        self, records: Mapping[str, RecordWrite], events: Events, flush: Callable[[], Awaitable[None]]
    ) -> None:
        """Hold these; `flush` is to commit them when nothing else has."""
        self.records.update(records)
        self.events.extend(events)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(HOLD_SECONDS, self._due, flush)

    def joined(
        self, records: Mapping[str, RecordWrite | None], events: Events
    ) -> tuple[Mapping[str, RecordWrite | None], Events]:
        """What is held, and then these, to be committed at once."""
        if not self.records and not self.events:
            return records, events
        together = {**self.records, **records}, [*self.events, *events]
        self.drop()
        return together

    def drop(self) -> None:
        """Forget what is held; the timer, once set, is cheaper left to find nothing."""
        self.records, self.events = {}, []

    def _due(self, flush: Callable[[], Awaitable[None]]) -> None:
        self._timer = None
        if self.records or self.events:
            self._flushing = asyncio.ensure_future(flush())
            self._flushing.add_done_callback(_note)


def _note(flushing: asyncio.Future[None]) -> None:
    """What keeps a beginning from being stored meets the end too, and is raised there."""
    if not flushing.cancelled():
        flushing.exception()
