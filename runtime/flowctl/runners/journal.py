"""The journal of one leg: commits to storage and wakes those who follow the run."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flowctl.clock import Clock
from flowctl.events import WorkflowEvent
from flowctl.pubsub import Feed
from flowctl.snapshot import ACTIVE, RunStatus, Snapshot
from flowctl.storage.base import Commit, RecordWrite, Storage


@dataclass(slots=True)
class StoredJournal:
    """See execution.ops.Journal."""

    storage: Storage
    feed: Feed
    workflow_id: str
    run_id: str
    leg: int
    clock: Clock
    repeats: bool = True
    _looking_up: asyncio.Lock = field(default_factory=asyncio.Lock)

    def now(self) -> int:
        """See Journal."""
        return self.clock.now()

    def new_id(self) -> str:
        """See Journal."""
        return str(uuid.uuid4())

    async def finished(self, op: str, key: str) -> Mapping[str, object] | None:
        """See Journal; a runner that never repeats an operation saves the look-up.

        Look-ups take turns, so that branches begin in their order however many connections a storage has.
        """
        if not self.repeats:
            return None
        async with self._looking_up:
            run = (self.workflow_id, self.run_id)
            return await self.storage.finished_memo(*run, leg=self.leg, key=key, op=op)

    async def ended(self) -> RunStatus | None:
        """See Journal."""
        if not self.repeats:
            return None
        known = await self.storage.get_status(self.workflow_id, self.run_id)
        status, leg = known or ("canceled", self.leg)
        return status if leg != self.leg or status not in ACTIVE else None

    async def commit(
        self,
        snapshot: Snapshot,
        *,
        records: Mapping[str, RecordWrite | None],
        events: Sequence[tuple[str, WorkflowEvent]],
    ) -> bool:
        """See Journal."""
        commit = Commit(self.workflow_id, self.run_id, self.leg, self.now(), snapshot, records, events)
        stored = await self.storage.commit(commit)
        if stored and events:
            self.feed.wake(self.workflow_id, self.run_id)
        return stored
