"""A run as it happens: one line a step on stderr."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flowctl_cli.console import say, style

MARKS = {
    "success": ("✓", "green"),
    "failed": ("✗", "red"),
    "suspended": ("⏸", "yellow"),
    "canceled": ("■", "yellow"),
    "waiting": ("…", "dim"),
}


@dataclass(slots=True)
class Progress:
    """Prints events; remembers how the run ended."""

    began: float = field(default_factory=time.monotonic)
    steps: dict[str, float] = field(default_factory=dict[str, float])
    status: str = "running"

    def show(self, event: Mapping[str, Any]) -> None:
        """Print what an event says."""
        payload: Mapping[str, Any] = event.get("payload") or {}
        id = str(payload.get("id", ""))
        match event["type"]:
            case "workflow-step-start":
                self.steps[id] = time.monotonic()
            case "workflow-step-result":
                self._line(id, str(payload.get("status", "success")), payload)
            case "workflow-step-suspended":
                self._line(id, "suspended", payload)
            case "workflow-step-waiting":
                self._line(id, "waiting", payload)
            case "workflow-step-output":
                say(f"    {style(_short(payload.get('output')), 'dim')}")
            case "workflow-canceled":
                self.status = "canceled"
            case "workflow-finish":
                self.status = str(payload.get("workflowStatus", "success"))
            case _:
                pass

    def end(self, workflow: str, run_id: str) -> None:
        """The last line."""
        took = time.monotonic() - self.began
        mark, colour = MARKS.get(self.status, ("•", "dim"))
        say(f"{style(mark, colour)} {workflow} {self.status} in {took:.2f} s {style(run_id, 'dim')}")

    def _line(self, id: str, status: str, payload: Mapping[str, Any]) -> None:
        mark, colour = MARKS.get(status, ("•", "dim"))
        took = time.monotonic() - self.steps.get(id, time.monotonic())
        iteration = (payload.get("metadata") or {}).get("iterationCount")
        name = f"{id} #{iteration}" if iteration else id
        shown = payload.get("output", payload.get("suspendPayload"))
        if status == "failed":
            shown = (payload.get("error") or {}).get("message")
        milliseconds = style(f"{took * 1000:4.0f} ms", "dim")
        say(f"  {style(mark, colour)} {name:<24} {milliseconds}  {_short(shown)}")


def _short(value: Any) -> str:
    import json  # noqa: PLC0415 - nothing else here needs it

    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return "" if value is None else text if len(text) <= 100 else f"{text[:99]}…"
