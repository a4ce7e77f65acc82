"""The journal of one leg: commits to storage and wakes those who follow the run."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flowctl.clock import Clock
from flowctl.events import WorkflowEvent
from flowctl.pubsub import Feed
from flowctl.snapshot import ACTIVE, RunStatus, Snapshot
from flowctl.storage.base import Commit, Inside, RecordWrite, Storage, TakeUp

Known = Mapping[str, object]  # the memo of an operation that was finished


@dataclass(frozen=True, slots=True)
class _Question:
    """Whether an operation was finished before: its memo, None, or the storage's error."""

    op: str
    key: str
    answer: asyncio.Future[Known | None]

    def settle(self, memo: Known | BaseException | None) -> None:
        """Answer whoever still waits."""
        if self.answer.done():
            return
        if isinstance(memo, BaseException):
            self.answer.set_exception(memo)
        else:
            self.answer.set_result(memo)


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
    execution: str | None = None
    """What tells this execution of the leg, or of a part of it, from others, once it has taken that up."""
    _asked: list[_Question] = field(default_factory=list["_Question"])
    _answering: asyncio.Task[None] | None = None

    def now(self) -> int:
        """See Journal."""
        return self.clock.now()

    def new_id(self) -> str:
        """See Journal."""
        return os.urandom(16).hex()

    async def finished(self, op: str, key: str, *, alone: bool) -> Known | None:
        """See Journal; a runner that never repeats an operation saves the look-up.

        Branches that ask at the same time are answered together, in order: so they begin in order, and before
        any of them ends, however long a storage takes.
        """
        if not self.repeats:
            return None
        if alone:
            return await self._memo(op, key)
        question = _Question(op, key, asyncio.get_running_loop().create_future())
        self._asked.append(question)
        if len(self._asked) == 1:
            self._answering = asyncio.create_task(self._answer())
        return await question.answer

    async def _answer(self) -> None:
        memos: list[Known | BaseException | None] = []
        while len(memos) < len(self._asked):  # others may ask meanwhile
            new = self._asked[len(memos) :]
            asking = (self._memo(question.op, question.key) for question in new)
            memos += await asyncio.gather(*asking, return_exceptions=True)
        asked, self._asked = self._asked, []
        for question, memo in zip(asked, memos, strict=True):
            question.settle(memo)

    async def _memo(self, op: str, key: str) -> Known | None:
        return await self.storage.finished_memo(self.workflow_id, self.run_id, leg=self.leg, key=key, op=op)

    async def left(self, op: str, key: str) -> Known | None:
        """See Journal."""
        return await self.storage.finished_memo(self.workflow_id, self.run_id, leg=None, key=key, op=op)

    async def take_up(self, part: str | None = None) -> None:
        """Execute the leg, or the part of it under that record's key, from now on."""
        self.execution = self.new_id()
        taken = TakeUp(self.workflow_id, self.run_id, self.leg, self.execution, part)
        await self.storage.take_up(taken)

    async def ended(self) -> RunStatus | None:
        """See Journal."""
        if not self.repeats:
            return None
        known = await self.storage.get_status(self.workflow_id, self.run_id)
        status, leg = known or ("canceled", self.leg)
        return status if leg != self.leg or status not in ACTIVE else None

    async def commit(
        self,
        snapshot: Snapshot | Inside,
        *,
        records: Mapping[str, RecordWrite | None],
        events: Sequence[tuple[str, WorkflowEvent]],
        is_shown: bool,
    ) -> bool:
        """See Journal."""
        run = (self.workflow_id, self.run_id)
        commit = Commit(*run, self.leg, self.now(), snapshot, records, events, is_shown, self.execution)
        stored = await self.storage.commit(commit)
        if stored and events:
            at_rest = isinstance(snapshot, Snapshot) and snapshot.status not in ACTIVE
            self.feed.wake(self.workflow_id, self.run_id, at_rest=at_rest)
        return stored
