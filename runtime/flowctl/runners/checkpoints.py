"""Steps that are reported to the engine while its request goes on, so that one request runs many of them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from flowctl.errors import EngineError
from flowctl.execution.ops import Memo
from flowctl.runners.engine_api import EngineApi
from flowctl.runners.engine_call import EngineCall

PAUSES_SECONDS = (0.1, 0.4)
DELAY_SECONDS = 0.2
"""How long in a crowd a report may wait for what ends after it."""
LONG_SECONDS = 0.05
"""While a step lasts so long, the engine may have made another request for the run, which runs it too."""
SILENCE_SECONDS = 2.0
"""How long in a crowd a request goes on without hearing that the engine has taken a report."""
MOST_WAITING = 50
"""So many steps are reported at once."""
MOST_LATE_BYTES = 4096
"""So much of what is not reported yet is written again with a record that it is about."""


class StaleDispatchError(Exception):
    """The engine has given this request up: another one executes the run. Ends the request."""

    quiet = True


@dataclass(frozen=True, slots=True)
class EndedStep:
    """A body that ran in this request; `key` is that of the record that has its memo, `size` the memo's."""

    op: str
    memo: Memo
    began_ns: int
    ended_ns: int
    key: str | None = None
    size: int = 0

    @property
    def seconds(self) -> float:
        """How long it ran."""
        return (self.ended_ns - self.began_ns) / 1e9

    def to_json(self) -> dict[str, Any]:
        """As the engine takes it: with the interval in which it ran."""
        return {
            "op": "StepRun",
            "id": hashed(self.op),
            "name": self.op,
            "displayName": self.op,
            "data": self.memo,
            "timing": {"a": self.began_ns, "b": self.ended_ns - self.began_ns},
        }


def hashed(op: str) -> str:
    """A step's id as engines know it."""
    return hashlib.sha1(op.encode(), usedforsecurity=False).hexdigest()


@dataclass(slots=True)
class Checkpoints:
    """The steps of one request. What waits here goes out with the next step that may not run again.

    Alone, a request waits for each report. In a crowd, where each costs what another run could do, it goes on
    meanwhile, and what ends until the engine has answered is reported together: nothing is lost with the
    process, for a step that has ended is in storage; another one that writes its record, as a loop's next
    iteration does, takes its memo along. It goes on so while the engine has lately taken it for the one that
    executes the run: not after a long step.
    """

    api: EngineApi
    call: EngineCall | None
    began_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    waiting: list[EndedStep] = field(default_factory=list[EndedStep])
    _on_their_way: list[Sequence[EndedStep]] = field(default_factory=list[Sequence[EndedStep]])
    _sending: asyncio.Task[bool] | None = None
    _hurry: asyncio.Event = field(default_factory=asyncio.Event)
    _is_refused: bool = False
    """The engine has not taken the newest report, which is tried again."""
    _confirmed: float = field(default_factory=time.monotonic)

    def unreported(self, key: str) -> Sequence[EndedStep]:
        """The steps whose memos this record alone has."""
        return [step for steps in (*self._on_their_way, self.waiting) for step in steps if step.key == key]

    async def report(self) -> bool:
        """Report what waits: see `post`. In a crowd it is on its way then."""
        is_long = self.waiting[-1].seconds > LONG_SECONDS
        is_alone = time.monotonic() - self._confirmed > SILENCE_SECONDS
        if not self._is_crowded or is_long or is_alone or len(self.waiting) >= MOST_WAITING:
            return await self.post()
        return self._begin_sending()

    async def post(self) -> bool:
        """Report what waits; whether the engine has all of it now. Raises StaleDispatchError."""
        if not self._is_crowded:
            return await self._send()
        return self._begin_sending() and await self.settled()

    @property
    def _is_crowded(self) -> bool:
        """Whether it is, or was: then one task sends all, so that reports do not overtake each other."""
        return self._sending is not None or self.api.is_crowded

    def _begin_sending(self) -> bool:
        """False when what was sent before was not taken. Raises StaleDispatchError."""
        if self._sending is not None and not self._sending.done():
            return True
        if self._sending is not None and not self._sending.result():
            return False
        self._hurry.clear()
        self._sending = asyncio.create_task(self._send_together())
        return True

    async def settled(self) -> bool:
        """Wait for what is on its way; whether the engine has it. Raises StaleDispatchError."""
        self._hurry.set()
        return self._sending is None or await asyncio.shield(self._sending)

    async def may_begin(self, key: str | None, *, carries: bool) -> bool:
        """Whether a step that writes a record may begin: not when the engine does not take reports.

        Waits while it does not answer as usual, or has yet to be told what that record alone tells, unless
        the step carries that along and it is little. Raises StaleDispatchError.
        """
        is_under_way = self._sending is not None and not self._sending.done()
        may = is_under_way and not self._is_refused and self._may_write(key, carries=carries)
        return may or await self.settled()

    def _may_write(self, key: str | None, *, carries: bool) -> bool:
        late = [step.size for step in self.unreported(key)] if key is not None else []
        return sum(late) <= MOST_LATE_BYTES if carries else not late

    def close(self) -> None:
        """Send nothing more."""
        if self._sending is not None and not self._sending.cancel() and not self._sending.cancelled():
            self._sending.exception()

    async def _send_together(self) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DELAY_SECONDS):
                await self._hurry.wait()
        return await self._send()

    async def _send(self) -> bool:
        while self.waiting:
            taken, self.waiting = self.waiting, []
            self._on_their_way.append(taken)
            try:
                is_taken = self.call is not None and await self._sent(self.call, taken)
            finally:
                self._on_their_way.remove(taken)
            if not is_taken:
                self.waiting = [*taken, *self.waiting]
                return False
        return True

    async def _sent(self, call: EngineCall, steps: Sequence[EndedStep]) -> bool:
        status = 0
        for pause in (*PAUSES_SECONDS, None):
            status = await self._status(call, steps)
            self._is_refused = status >= 500
            if not self._is_refused:
                break
            if pause is not None:
                await asyncio.sleep(pause)
        if status == 404:
            self.api.note_no_checkpoints()
        if status < 300:
            self._confirmed = time.monotonic()
        return status < 300

    async def _status(self, call: EngineCall, steps: Sequence[EndedStep]) -> int:
        body = {
            "run_id": call.run_id,
            "fn_id": call.function_id,
            "qi_id": call.queue_item,
            "request_id": call.request_id,
            "generation_id": call.generation,
            "request_started_at": self.began_ms,
            "steps": [step.to_json() for step in steps],
        }
        try:
            answer = await self.api.call("POST", f"/v1/checkpoint/{call.run_id}/async", body)
        except EngineError:
            return 503
        if answer.status == 409 or (answer.status == 400 and b"stale dispatch" in answer.body):
            raise StaleDispatchError(f"Another request executes run {call.run_id!r}: {answer.body.decode()}")
        return answer.status
