"""How far each line of operations has come, for an engine that makes a request for each step.

Branches are under way in requests of their own then, and a leg may end only when none is. What was asked for
must be the same for all requests, however much each of them knows: so a line asks for its next step unless
the one that it remembers last was among those that ended when the leg was spent. Called by `inngest_ops`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import orjson

from flowctl.legs import LegLimits
from flowctl.runners.checkpoints import hashed
from flowctl.runners.engine_call import EngineCall

Thunk = Callable[[], Awaitable[Any]]


@dataclass(slots=True)
class Lines:
    """When each step ended (the first is 1), by its hashed id; at `last` the leg was spent."""

    places: dict[str, int] = field(default_factory=dict[str, int])
    last: int = 0
    _place: int = 0

    @classmethod
    def of(cls, call: EngineCall, limits: LegLimits) -> Lines:
        """Those of a request. Where an engine tells no order, no leg ends among branches."""
        size, last = 0, limits.steps
        for place, id in enumerate(call.stack, 1):
            size += len(orjson.dumps(call.steps.get(id)))
            if size >= limits.size:
                last = min(place, last)
                break
        return cls({id: place for place, id in enumerate(call.stack, 1)}, last)

    def remember(self, op: str) -> None:
        """Note that the line has come past a step that ended."""
        self._place = max(self._place, self.places.get(hashed(op), 0))

    @property
    def is_spent(self) -> bool:
        """Whether this line asks for nothing more in this leg."""
        return 0 < self.last <= self._place

    def beginning_here(self, thunks: Sequence[Thunk]) -> list[Thunk]:
        """Branches, each a line from here on; what follows them comes after the furthest."""
        return [partial(self._branch, self._place, thunk) for thunk in thunks]

    async def _branch(self, begin: int, thunk: Thunk) -> Any:
        furthest, self._place = self._place, begin
        try:
            return await thunk()
        finally:
            self._place = max(furthest, self._place)
