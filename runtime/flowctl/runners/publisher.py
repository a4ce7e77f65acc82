"""Sends a run's events to its realtime channel, in order, beside the walk: a failure there costs nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

import orjson

from flowctl.errors import EngineError
from flowctl.events import WorkflowEvent
from flowctl.runners.engine_api import EngineApi

GRACE_SECONDS = 5.0
DELAY_SECONDS, CROWDED_SECONDS = 0.02, 0.2
"""How long a message may wait for others, so that sending it does not hold up the steps of a short run."""
BATCH_BYTES = 256 * 2**10


@dataclass(slots=True, weakref_slot=True, eq=False)
class Publisher:
    """The messages of one channel, topic `watch`; of all legs that overlap in this event loop."""

    api: EngineApi
    channel: str
    logger: logging.Logger
    _waiting: list[bytes] = field(default_factory=list[bytes])
    _hurry: asyncio.Event = field(default_factory=asyncio.Event)
    _task: asyncio.Task[None] | None = None

    def put(self, event: WorkflowEvent) -> None:
        """Send an event soon."""
        self._waiting.append(orjson.dumps(event.to_json()))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._send())

    async def flushed(self) -> None:
        """Return once all are out, or after some seconds."""
        if self._task is None:
            return
        self._hurry.set()
        done, _ = await asyncio.wait([self._task], timeout=GRACE_SECONDS)
        if not done:
            self.logger.warning("Events of %s could not be published in time.", self.channel)
            self._task.cancel()

    async def _send(self) -> None:
        params = {"channel": self.channel, "topic": "watch"}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CROWDED_SECONDS if self.api.is_crowded else DELAY_SECONDS):
                await self._hurry.wait()
        while self._waiting:
            count = _fitting(self._waiting) if self.api.takes_lines else 1
            messages, self._waiting = self._waiting[:count], self._waiting[count:]
            try:
                await self.api.publish(messages, params)
            except EngineError as err:
                self.logger.debug("Could not publish an event to %s: %s", self.channel, err)


def _fitting(messages: Sequence[bytes]) -> int:
    """How many of them go into one request: one at least."""
    sizes = accumulate(len(message) + 1 for message in messages)
    return max(1, sum(size <= BATCH_BYTES for size in sizes))
