"""What runs remember, encoded as apps are told of it and kept from one request of a run to the next.

Called by `executor`. A step that has ended never changes, so only those are read that ended since the last
request. Runs that have ended are dropped as others need the room; what is kept may be dropped at any time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson

from flowctl.engine.store import StepRow, Store

KEPT_BYTES = 32 * 2**20
OVERHEAD_BYTES = 512
"""What a run takes in memory beside its encoded steps, about: it bounds how many small ones are kept."""
MAX_ENCODED_BYTES = 4 * 2**20
"""Of a run that remembers more than this, a request would be too large with it, so it is not encoded."""


@dataclass(frozen=True, slots=True)
class Memo:
    """A run's steps in order of their ends: the `members` of a JSON object, and `ids` as those of a list."""

    last: int = 0
    count: int = 0
    size: int = 0
    """Bytes of their outputs."""
    members: bytes = b""
    ids: bytes = b""

    def extended(self, rows: Sequence[StepRow]) -> Memo:
        """With steps that ended later."""
        ids = [orjson.dumps(row.step_id) for row in rows]
        size = self.size + sum(len(row.body) for row in rows)
        members = [b"%b:%b" % (id, row.body) for id, row in zip(ids, rows, strict=True)]
        return Memo(
            last=rows[-1].number,
            count=self.count + len(rows),
            size=size,
            members=b"" if size > MAX_ENCODED_BYTES else _joined(self.members, members),
            ids=_joined(self.ids, ids),
        )

    @property
    def kept_bytes(self) -> int:
        """What it takes in memory."""
        return OVERHEAD_BYTES + len(self.members) + len(self.ids)


@dataclass(slots=True)
class Memos:
    """Those of the runs that were called last, so many as fit into `bound` bytes."""

    store: Store
    bound: int = KEPT_BYTES
    _kept: OrderedDict[str, Memo] = field(default_factory=OrderedDict[str, Memo])
    _bytes: int = 0

    def of(self, run_id: str) -> Memo:
        """What a run remembers now."""
        memo = self._taken(run_id) or Memo()
        if rows := self.store.steps_after(run_id, memo.last):
            memo = memo.extended(rows)
        if memo.count:
            self._keep(run_id, memo)
        return memo

    def _taken(self, run_id: str) -> Memo | None:
        memo = self._kept.pop(run_id, None)
        self._bytes -= memo.kept_bytes if memo else 0
        return memo

    def _keep(self, run_id: str, memo: Memo) -> None:
        self._kept[run_id] = memo
        self._bytes += memo.kept_bytes
        while self._bytes > self.bound:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= oldest.kept_bytes


def _joined(known: bytes, new: Sequence[bytes]) -> bytes:
    return b",".join((known, *new) if known else new)
