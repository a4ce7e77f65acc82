"""Changes of state and request context by steps that run at the same time: what ended last wins.

Replays meet outcomes in another order than they came in, so each tells when it ended. Called by `walk`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flowctl.execution.outcome import Outcome
from flowctl.request_context import RequestContext


@dataclass(slots=True)
class Changes:
    """Which outcome each key was last changed by."""

    newest: int = 0
    _by_key: dict[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])

    def next(self, now: int) -> int:
        """The place of an outcome that comes now (epoch ms): after all that are known, in any process."""
        self.newest = max(self.newest + 1, now * 1000)
        return self.newest

    def apply(self, outcome: Outcome, state: dict[str, Any], context: RequestContext) -> None:
        """Change what no later outcome has changed."""
        self.newest = max(self.newest, outcome.order)
        state |= {k: v for k, v in outcome.state.items() if self._is_last("state", k, outcome.order)}
        for name, value in outcome.context_set.items():
            if self._is_last("context", name, outcome.order):
                context.set(name, value)
        for name in outcome.context_deleted:
            if self._is_last("context", name, outcome.order):
                context.delete(name)

    def made(self, state: Mapping[str, Any], context: RequestContext) -> dict[str, Any]:
        """All that was changed, as it is now: what `apply` needs of an outcome, as JSON data."""
        names = {name for kind, name in self._by_key if kind == "context"}
        return {
            "state": {name: state[name] for kind, name in self._by_key if kind == "state"},
            "contextSet": {name: value for name, value in context.to_json().items() if name in names},
            "contextDeleted": sorted(names - context.keys()),
            "order": self.newest,
        }

    def _is_last(self, kind: str, name: str, order: int) -> bool:
        if order < self._by_key.get((kind, name), 0):
            return False
        self._by_key[kind, name] = order
        return True
