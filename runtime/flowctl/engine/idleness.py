"""Runs whose function is called again though none of its steps has ended since: not for ever.

An app does that whose answers name steps that have ended, or steps that it does not know when it is to run
them. Called by `ledger`; what is counted is not stored.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from flowctl.engine.turn import BACKOFF_MS

AT_ONCE = 25
"""So many of these calls follow each other at once; it may defer 20 functions."""


@dataclass(slots=True)
class Idleness:
    """How often in a row each run was called in vain, and in which turn that was counted last."""

    turn: int = 0
    calls: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])

    def is_enough(self, run_id: str) -> bool:
        """Count a call of a run's function without a new step, once a turn; whether it is one too many."""
        count, counted = self.calls.get(run_id, (0, 0))
        count += counted != self.turn
        self.calls[run_id] = count, self.turn
        return count > AT_ONCE + len(BACKOFF_MS)

    def wait_ms(self, run_id: str) -> int:
        """How long to wait before the next one."""
        late = self.calls[run_id][0] - AT_ONCE if run_id in self.calls else 0
        return BACKOFF_MS[late - 1] if late > 0 else 0

    def progressed(self, run_id: str) -> None:
        """A step of the run has ended, or the run itself."""
        self.calls.pop(run_id, None)


def idle_run() -> dict[str, Any]:
    """The error of a run that was called in vain too often."""
    message = (
        "The app was called again and again without a step ending: its answers named steps that have ended "
        "before, or it did not know those that it was called for. Steps must not depend on time or chance."
    )
    return {"name": "Error", "message": message}
