"""The writer of a step's context: what is written goes out while the step's code runs. Called by `steps`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from flowctl import events
from flowctl.errors import FlowctlError
from flowctl.events import WorkflowEvent
from flowctl.execution.walk import Walk
from flowctl.schema import to_json


class StreamWriter:
    """The `writer` of a context: events go out at once, in order, while the code runs."""

    def __init__(self, walk: Walk, key: str, op: str, attempt: int) -> None:
        self._walk, self._key, self._op, self._attempt = walk, key, op, attempt
        self._count = 0
        self._loop = asyncio.get_running_loop()
        self._tail: asyncio.Future[None] | None = None

    def write(self, value: Any) -> None:
        """See Writer."""
        self._emit(events.step_wrote(self._walk.run_id, self._key, to_json(value)))

    def custom(self, event: Mapping[str, Any]) -> None:
        """See Writer."""
        given = to_json(event)
        if not isinstance(given, dict) or not isinstance(given.get("type"), str):
            raise FlowctlError(f"ctx.writer.custom takes an object with a 'type', got {event!r}.")
        self._emit(WorkflowEvent(given["type"], given, self._walk.run_id, custom=True))

    async def flushed(self) -> None:
        """Return once everything written so far is out."""
        if self._count == 0:
            return
        await asyncio.sleep(0)  # what was just written is appended by the loop
        while (tail := self._tail) is not None:
            self._tail = None
            await tail

    def _emit(self, event: WorkflowEvent) -> None:
        self._count += 1
        key = f"{self._op}:{self._attempt}:write:{self._count}"
        self._loop.call_soon_threadsafe(self._append, key, event)

    def _append(self, key: str, event: WorkflowEvent) -> None:
        self._tail = asyncio.ensure_future(self._send(self._tail, key, event))

    async def _send(self, before: asyncio.Future[None] | None, key: str, event: WorkflowEvent) -> None:
        if before is not None:
            await before
        await self._walk.commit(events=[(key, event)])
