"""What a leg and a request have left."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from flowctl.legs import LegLimits


@dataclass(slots=True)
class Budget:
    """What a leg has left while a request is answered."""

    limits: LegLimits
    steps: int
    size: int
    began: float = field(default_factory=time.monotonic)

    def spend(self, size: int) -> None:
        """Count a memo."""
        self.steps += 1
        self.size += size

    @property
    def leg_is_spent(self) -> bool:
        """Whether the leg should end here."""
        return self.steps >= self.limits.steps or self.size >= self.limits.size

    @property
    def request_is_spent(self) -> bool:
        """Whether the request should be answered now."""
        return time.monotonic() - self.began >= self.limits.seconds


class RollOver(BaseException):
    """The leg ends here and goes on in a new one: leaves the walk, as inngest-py's interrupts do."""
