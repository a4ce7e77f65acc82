"""Back-pressure: what waits in the queue is bounded, and senders are told to come again."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from flowctl.engine import statements as sql
from flowctl.engine.store import Store

LOOK_AGAIN_SECONDS = 0.5
RETRY_AFTER_SECONDS = 2


class OverloadedError(Exception):
    """More is queued, or sent at once, than the engine may hold; nothing of what was sent was taken."""


@dataclass(slots=True)
class Backlog:
    """The jobs of a store, counted now and then: between two counts the bound may be overshot a little."""

    store: Store
    bound: int
    _count: int = 0
    _counted_at: float = -math.inf

    def check(self) -> None:
        """Raise OverloadedError when no more may be taken in."""
        now = time.monotonic()
        if now - self._counted_at >= LOOK_AGAIN_SECONDS:
            self._count, self._counted_at = self.store.db.execute(sql.COUNT_JOBS).fetchone()[0], now
        if self._count >= self.bound:
            raise OverloadedError(
                f"{self._count} jobs are queued, the bound is {self.bound}: try again later."
            )
