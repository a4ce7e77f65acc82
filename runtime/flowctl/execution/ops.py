"""The seam between a workflow and what makes it durable: six verbs, two implementations.

Implemented by `runners.local` and `runners.inngest`; called by the rest of `execution`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from flowctl.events import WorkflowEvent
from flowctl.snapshot import RunStatus, Snapshot
from flowctl.storage.base import Inside, RecordWrite

if TYPE_CHECKING:
    from flowctl.workflow import Workflow

Memo = dict[str, Any]


class DurableOps(Protocol):
    """What survives a crash. An operation that has ended is not run again; its memo is given instead.

    Implementations may leave the walk by a BaseException, so code between operations has no effects.
    """

    async def run(
        self,
        op: str,
        body: Callable[[], Awaitable[Memo]],
        *,
        repeatable: bool = False,
        key: str | None = None,
        carries: bool = False,
        kept: Callable[[], Awaitable[Mapping[str, Any] | None]] | None = None,
    ) -> Memo:
        """Run a body once and remember its memo (JSON data) under the operation's id.

        A `repeatable` body runs no code of steps; its memo may be remembered together with the next one's.
        `key` is that of the record that has the memo, too, until another operation writes it: so long it may
        be remembered late. One that `carries` writes it with the `unremembered` memos. `kept` gives the memo
        that an earlier request's death has left in storage alone.
        """
        ...

    def unremembered(self, key: str) -> Mapping[str, Memo]:
        """The memos of ended operations on a record that are to be remembered late, by name."""
        ...

    async def sleep(self, op: str, until: int) -> None:
        """Go on at that time (epoch ms)."""
        ...

    async def invoke(
        self,
        op: str,
        workflow: Workflow[Any, Any],
        *,
        ask: Callable[[], Memo],
        take: Callable[[Memo], None],
    ) -> Memo | None:
        """Have a nested workflow run as a function of its own, within its flow control; what that answers.

        `ask` gives what it is told, `take` merges what it answers: also what one answers that has become long
        and is to be invoked again in the next leg. None when it is to be walked as part of this function.
        """
        ...

    async def gather(
        self,
        thunks: Sequence[Callable[[], Awaitable[Any]]],
        *,
        limit: int | None = None,
        stops: Callable[[Any], bool] | None = None,
    ) -> list[Any]:
        """Run branches at once, at most `limit` at a time; their values in order.

        After a value for which `stops` holds no further branch begins; those that did not give None.
        """
        ...


class Journal(Protocol):
    """Where bodies leave what they did: storage and the event feed, bound to one run and leg."""

    @property
    def repeats(self) -> bool:
        """Whether the runner may repeat an operation that has ended, so that memos have to be kept."""
        ...

    @property
    def leg(self) -> int:
        """The number of the leg."""
        ...

    def now(self) -> int:
        """Epoch milliseconds."""
        ...

    def new_id(self) -> str:
        """A fresh unique id."""
        ...

    async def finished(self, op: str, key: str, *, alone: bool) -> Mapping[str, Any] | None:
        """The memo of an operation on a record whose end was committed, though the engine may not know.

        Unless it is `alone`, branches may ask at the same time.
        """
        ...

    async def left(self, op: str, key: str) -> Mapping[str, Any] | None:
        """The memo that an operation of an earlier leg, interrupted, has left with a record."""
        ...

    async def ended(self) -> RunStatus | None:
        """How the leg ended, when an earlier, repeated try of its last operation has ended it."""
        ...

    async def commit(
        self,
        snapshot: Snapshot | Inside,
        *,
        records: Mapping[str, RecordWrite | None],
        events: Sequence[tuple[str, WorkflowEvent]],
        is_shown: bool,
    ) -> bool:
        """Store changes and wake those who watch; False when the run was canceled meanwhile.

        Unless `is_shown`, what is shown of the run stays as it was.
        """
        ...
