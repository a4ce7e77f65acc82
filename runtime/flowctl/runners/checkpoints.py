"""Steps that are reported to the engine while its request goes on, so that one request runs many of them."""

from __future__ import annotations

import asyncio
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


class StaleDispatchError(Exception):
    """The engine has given this request up: another one executes the run. Ends the request."""

    quiet = True


@dataclass(frozen=True, slots=True)
class EndedStep:
    """A body that ran in this request."""

    op: str
    memo: Memo
    began_ns: int
    ended_ns: int

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
    """The steps of one request. What waits here goes out with the next step that may not run again."""

    api: EngineApi
    call: EngineCall | None
    began_ms: int = field(default_factory=lambda: time.time_ns() // 1_000_000)
    waiting: list[EndedStep] = field(default_factory=list[EndedStep])

    async def post(self) -> bool:
        """Report what waits; whether the engine has it now. Raises StaleDispatchError."""
        taken, self.waiting = self.waiting, []
        if not taken or (self.call is not None and await self._sent(self.call, taken)):
            return True
        self.waiting = [*taken, *self.waiting]
        return False

    async def _sent(self, call: EngineCall, steps: Sequence[EndedStep]) -> bool:
        status = 0
        for pause in (*PAUSES_SECONDS, None):
            status = await self._status(call, steps)
            if status < 500:
                break
            if pause is not None:
                await asyncio.sleep(pause)
        if status == 404:
            self.api.note_no_checkpoints()
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
