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
    goes_on: bool = False
    """Whether the leg has come further than the one before."""
    began: float = field(default_factory=time.monotonic)

    def spend(self, size: int) -> None:
        """Count a memo of an operation that has ended."""
        self.steps += 1
        self.size += size
        self.goes_on = True

    def end(self) -> None:
        """Leave the leg nothing more."""
        self.steps, self.goes_on = self.limits.steps, True

    @property
    def leg_is_spent(self) -> bool:
        """Whether the leg should end here: not before an operation has ended in it."""
        return self.goes_on and (self.steps >= self.limits.steps or self.size >= self.limits.size)

    @property
    def request_is_spent(self) -> bool:
        """Whether the request should be answered now."""
        return time.monotonic() - self.began >= self.limits.seconds


class RollOver(BaseException):
    """The leg ends here and goes on in a new one: leaves the walk, as inngest-py's interrupts do."""
