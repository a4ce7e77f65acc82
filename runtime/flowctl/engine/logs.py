"""What the engine's own process writes to stderr: a time, a level, a message. Set up by `__main__`."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

FORMAT = "%(asctime)s %(levelname)s %(message)s"
REPEATED_SECONDS = 60.0
REMEMBERED = 1_000


@dataclass(slots=True)
class Repeats:
    """A filter that lets the same message through once in a while, with the number of those held back."""

    seconds: float = REPEATED_SECONDS
    now: Callable[[], float] = time.monotonic
    _told: dict[str, tuple[float, int]] = field(default_factory=dict[str, tuple[float, int]])

    def filter(self, record: logging.LogRecord) -> bool:
        """See logging.Filter."""
        message, now = record.getMessage(), self.now()
        at, held = self._told.get(message, (-math.inf, 0))
        if now - at < self.seconds:
            self._told[message] = at, held + 1
            return False
        if len(self._told) >= REMEMBERED:
            self._told.clear()
        self._told[message] = now, 0
        if held:
            record.msg, record.args = f"{message} ({held} times more before this)", ()
        return True


def configure() -> None:
    """Log to stderr, unless whoever runs the engine has said where to."""
    handler = logging.StreamHandler()
    handler.addFilter(Repeats())
    logging.basicConfig(format=FORMAT, handlers=[handler])
    logging.getLogger("flowctl").setLevel(logging.INFO)
