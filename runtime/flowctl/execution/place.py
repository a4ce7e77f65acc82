"""Where in the graph a node is walked, and what outcomes mean for the walk. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flowctl.execution.outcome import Flow, Outcome
from flowctl.execution.walk import Scope

PAUSED = Flow("paused")
CANCELED = Flow("canceled")


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the graph a node is being walked, and the data before it."""

    scope: Scope
    index: int
    data: Any

    def op(self, id: str) -> str:
        """The durable id of what happens here to this step: its path."""
        return f"{self.scope.op_prefix}{self.index}.{id}"


def flow_of(outcome: Outcome) -> Flow:
    """What a step's outcome means for the walk."""
    record = outcome.record
    if outcome.bailed:
        return Flow("bailed", record.output)
    match record.status:
        case "success":
            return Flow("next", record.output)
        case "failed":
            return Flow("failed", error=record.error)
        case "suspended":
            return Flow("suspended")
        case "paused":
            return PAUSED
        case _:
            return CANCELED
