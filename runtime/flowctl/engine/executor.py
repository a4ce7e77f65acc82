"""Takes due jobs, calls the apps, hands what they answered to the ledger.

Nothing here is remembered: a job is taken in one transaction and ended in another, and a new process
releases what a dead one had taken.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from flowctl.engine.gates import Gates
from flowctl.engine.ledger import Ledger
from flowctl.engine.limits import overflow
from flowctl.engine.outgoing import State, to_endpoint, to_function
from flowctl.engine.protocol import Function
from flowctl.engine.signing import Keys
from flowctl.engine.starts import CALL
from flowctl.engine.store import Job, RunRow
from flowctl.engine.transport import Answer, BrokenError, NotReachedError, Transport
from flowctl.engine.turn import Call, Effect, Finish, Reply, effects_of, lost

CONCURRENCY = 200
UNKNOWN_FUNCTION_RETRY_MS = 1_000

log = logging.getLogger("flowctl.engine")


def now_ms() -> int:
    """Epoch milliseconds."""
    return time.time_ns() // 1_000_000


@dataclass(slots=True)
class Executor:
    """The engine's only loop."""

    ledger: Ledger
    transport: Transport = field(default_factory=Transport)
    keys: Keys = field(default_factory=Keys)
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    gates: Gates = field(init=False)
    _calls: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    def __post_init__(self) -> None:
        self.gates = Gates(self.ledger.store)

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            self.woken.clear()
            now = now_ms()
            due = self.ledger.store.next_due()
            room = CONCURRENCY - len(self._calls)
            if due is not None and due <= now and room > 0:
                self._take(now, room)
                self.gates.unpark(now=now, idle=False)
                continue
            if room > 0 and self.gates.unpark(now=now, idle=True):
                continue
            wait = (due - now) / 1000 if due is not None and due > now else None
            try:
                await asyncio.wait_for(self.woken.wait(), wait)
            except TimeoutError:
                continue

    async def stop(self) -> None:
        """Leave the calls in flight: their jobs are taken up again by the next engine."""
        for task in self._calls:
            task.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)
        await self.transport.close()

    def _take(self, now: int, room: int) -> None:
        for job in self.ledger.store.take_due(now, room):
            if job.kind != CALL:
                self.ledger.fire(job, now=now_ms())
            elif self.gates.enter(job):
                self._begin(job)

    def _begin(self, job: Job) -> None:
        task = asyncio.create_task(self._call(job))
        self._calls.add(task)
        task.add_done_callback(lambda ended: self._ended(ended, job))

    def _ended(self, task: asyncio.Task[None], job: Job) -> None:
        self._calls.discard(task)
        self.gates.leave(job)
        self.woken.set()
        if not task.cancelled() and task.exception() is not None:
            log.error("A call failed inside the engine.", exc_info=task.exception())

    async def _call(self, job: Job) -> None:
        run = self.ledger.store.run(job.run_id)
        if run is None or run.ended_at is not None:
            self.ledger.apply(job, [], now=now_ms())
            return
        function = self.ledger.functions.get(run.slug)
        call = Call(job.target, job.attempt, function.max_attempts if function else 1, now_ms())
        if function is None:
            self.ledger.apply(job, lost(call, reached=False), now=now_ms(), sdk_version=run.sdk_version)
            return
        self.ledger.begin(run, function, now=now_ms())
        effects, version = await self._answered(job, run, function, call)
        self.ledger.apply(job, effects, now=now_ms(), sdk_version=version)

    async def _answered(
        self, job: Job, run: RunRow, function: Function, call: Call
    ) -> tuple[list[Effect], int]:
        store = self.ledger.store
        state = State(store.encoded_steps(run.run_id), is_planned=store.pending(run.run_id) > 0)
        if error := overflow(steps=len(state.steps), size=state.size):
            return [Finish(failed=True, output=error)], run.sdk_version
        request = to_endpoint if function.endpoint_method else to_function
        try:
            answer = await self.transport.send(request(job, run, function, state, self.keys, now=call.now))
        except NotReachedError:
            return lost(self._at(call, job), reached=False), run.sdk_version
        except BrokenError as err:
            log.warning("Run %s: %s", run.run_id, err)
            return lost(self._at(call, job), reached=True), run.sdk_version
        version = answer.headers.get("x-inngest-req-version", "")
        known = int(version) if version.lstrip("-").isdigit() else run.sdk_version
        return _understood(_reply(answer), self._at(call, job)), known

    def _at(self, call: Call, job: Job) -> Call:
        """The call as it is when its answer comes: a checkpoint may have given it its attempts back."""
        attempt = self.ledger.store.attempt(job.id) if job.attempt else 0
        return replace(call, attempt=attempt, now=now_ms())


def _understood(reply: Reply, call: Call) -> list[Effect]:
    try:
        return effects_of(reply, call)
    except (AttributeError, KeyError, TypeError, ValueError) as err:
        message = f"The app's answer cannot be understood: {err!r}"
        return [Finish(failed=True, output={"name": "Error", "message": message})]


def _reply(answer: Answer) -> Reply:
    body = _parsed(answer.body)
    if answer.status == 201 and isinstance(body, dict) and {"status", "body"} <= body.keys():
        inner = body["body"]
        headers = {str(k).lower(): str(v) for k, v in (body.get("headers") or {}).items()}
        return Reply(int(body["status"]), headers, _parsed(inner) if isinstance(inner, str) else inner)
    return Reply(answer.status, answer.headers, body)


def _parsed(body: bytes | str) -> Any:
    try:
        return orjson.loads(body.strip() or b"null")
    except orjson.JSONDecodeError:
        return body.decode(errors="replace") if isinstance(body, bytes) else body
