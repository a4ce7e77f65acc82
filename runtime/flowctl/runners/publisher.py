"""Sends a leg's events to its realtime channel, in order, beside the walk: a failure there costs nothing."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

from flowctl.errors import EngineError
from flowctl.events import WorkflowEvent
from flowctl.runners.engine_api import EngineApi

GRACE_SECONDS = 5.0
DELAY_SECONDS = 0.02
"""How long a message may wait, so that sending it does not hold up the steps of a short run."""


@dataclass(slots=True)
class Publisher:
    """The messages of one channel, topic `watch`."""

    api: EngineApi
    channel: str
    logger: logging.Logger
    _waiting: list[WorkflowEvent] = field(default_factory=list[WorkflowEvent])
    _task: asyncio.Task[None] | None = None

    def put(self, event: WorkflowEvent) -> None:
        """Send an event soon."""
        self._waiting.append(event)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._send())

    async def flushed(self) -> None:
        """Return once all are out, or after some seconds."""
        if self._task is None:
            return
        done, _ = await asyncio.wait([self._task], timeout=GRACE_SECONDS)
        if not done:
            self.logger.warning("Events of %s could not be published in time.", self.channel)
            self._task.cancel()

    async def _send(self) -> None:
        params = {"channel": self.channel, "topic": "watch"}
        await asyncio.sleep(DELAY_SECONDS)
        while self._waiting:
            event = self._waiting.pop(0)
            try:
                await self.api.call("POST", "/v1/realtime/publish", event.to_json(), params)
            except EngineError as err:
                self.logger.debug("Could not publish an event to %s: %s", self.channel, err)
