"""Takes due jobs, calls the apps, hands what they answered to the ledger.

Nothing here is remembered: a job is taken in one transaction and ended in another, and a new process
releases what a dead one had taken.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from flowctl.engine import fetches
from flowctl.engine.budget import ByteBudget, Lease
from flowctl.engine.gates import Gates
from flowctl.engine.ledger import Ledger
from flowctl.engine.limits import overflow
from flowctl.engine.memos import Memos
from flowctl.engine.outgoing import Outgoing, State, to_endpoint, to_function
from flowctl.engine.protocol import Function, parsed_json
from flowctl.engine.signing import Keys
from flowctl.engine.starts import CALL, FETCH
from flowctl.engine.store import Job, RunRow, may_pass
from flowctl.engine.timers import OF_FUNCTIONS, Timers
from flowctl.engine.timing import Clock, SystemClock
from flowctl.engine.transport import (
    Answer,
    Carrier,
    MalformedError,
    NotReachedError,
    StaleError,
    TooLargeError,
    Transport,
)
from flowctl.engine.turn import (
    BACKOFF_MS,
    CREATED,
    OK,
    Call,
    Effect,
    Finish,
    Memoize,
    Reply,
    Retry,
    backed_off,
    broken,
    effects_of,
    not_understood,
    unreached,
)

CONCURRENCY = 1_000
"""Requests in flight at once."""
REQUEST_BYTES = 128 * 2**20
"""Of the larger ones among them, together: what it may cost to keep them until they are answered."""
BATCH = 100
"""Jobs taken in one go, between which the HTTP interface has its turn."""
PACED_BATCH, PACE_SECONDS, UNREACHABLE_FOR_MS = 25, 0.05, 3_000
"""What is taken while an app is out of reach, so that a long queue for it leaves time for everything else."""
UNKNOWN_FUNCTION_RETRY_MS = 1_000
INTERNAL_ERROR_RETRY_MS = 1_500
_VERSION = re.compile(r"-?[0-9]{1,9}")
SDK_HEADER, REDIRECTED = "x-inngest-sdk", 300

log = logging.getLogger("flowctl.engine")


@dataclass(slots=True)
class Executor:
    """The engine's only loop."""

    ledger: Ledger
    transport: Carrier = field(default_factory=Transport)
    keys: Keys = field(default_factory=Keys)
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    clock: Clock = field(default_factory=SystemClock)
    backoff: Sequence[int] = BACKOFF_MS
    budget: ByteBudget = field(default_factory=lambda: ByteBudget(REQUEST_BYTES))
    timers: Timers = field(init=False)
    gates: Gates = field(init=False)
    memos: Memos = field(init=False)
    _calls: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])
    _drains: bool = False
    _unreachable: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    """How often in a row each app's URL could not be reached, and when it was tried last."""

    def __post_init__(self) -> None:
        self.timers = Timers(self.ledger)
        self.gates, self.memos = Gates(self.ledger.store), Memos(self.ledger.store)

    async def run(self) -> None:
        """Work until cancelled."""
        while not self._drains:
            self.woken.clear()
            if self._is_paced(self.clock.now()):
                await asyncio.sleep(PACE_SECONDS)
            try:
                now = self.clock.now()
                due = self._work(now)
            except sqlite3.Error as err:
                self._database_failed(err)
                await asyncio.sleep(INTERNAL_ERROR_RETRY_MS / 1000)
                continue
            if due == now:
                await asyncio.sleep(0)
            else:
                await self.clock.wait(self.woken, due, certain=self._next_certain, is_busy=bool(self._calls))

    def _work(self, now: int) -> int | None:
        """Take what is due; answers when more is (`now` too), None when that is not known."""
        room = min(PACED_BATCH if self._is_paced(now) else BATCH, CONCURRENCY - len(self._calls))
        if room > 0:
            self.gates.throttles.unpark(now=now)
        due = self.ledger.store.next_due()
        if due is not None and due <= now and room > 0:
            self._take(now, room)
            self.gates.unpark(now=now, idle=False)
            return now
        if room > 0 and self.gates.unpark(now=now, idle=True):
            return now
        return _earliest(at for at in (due, self.gates.throttles.next_opening) if at and at > now)

    def _next_certain(self) -> int | None:
        """When the next job is due, or the next throttle opens, that nothing but time brings about."""
        return _earliest((self.ledger.store.next_certain(), self.gates.throttles.next_opening))

    @property
    def calls_in_flight(self) -> int:
        """How many apps are being called."""
        return len(self._calls)

    async def drain(self, seconds: float) -> None:
        """Take nothing more, and give the calls in flight some seconds to end."""
        self._drains = True
        if self._calls:
            await asyncio.wait(self._calls, timeout=seconds)

    def hurry(self) -> None:
        """Give up the calls in flight."""
        for task in self._calls:
            task.cancel()

    async def stop(self) -> None:
        """Leave the calls in flight: their jobs are taken up again by the next engine."""
        self.hurry()
        await asyncio.gather(*self._calls, return_exceptions=True)
        await self.transport.close()

    def _is_paced(self, now: int) -> bool:
        """Whether an app was out of reach just now: its runs would come back as fast as they are taken."""
        return any(now - at < UNREACHABLE_FOR_MS for _, at in self._unreachable.values())

    def _take(self, now: int, room: int) -> None:
        for job in self.ledger.store.take_due(now, room):
            try:
                self._let_in(job, now)
            except Exception as err:  # noqa: BLE001 - the boundary of a job
                self._failed(job, err)

    def _let_in(self, job: Job, now: int) -> None:
        if job.kind == FETCH:
            self._begin(job)
        elif job.kind != CALL:
            self.timers.fire(job, now=self.clock.now())
        elif self.gates.enter(job, now=now):
            self._begin(job)

    def _begin(self, job: Job) -> None:
        self.ledger.tally.queue_seconds.add(max(0, self.clock.now() - job.due) / 1000)
        task = asyncio.create_task(self._call(job))
        self._calls.add(task)
        task.add_done_callback(lambda ended: self._ended(ended, job))

    def _ended(self, task: asyncio.Task[None], job: Job) -> None:
        self._calls.discard(task)
        self.gates.leave(job)
        self.woken.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(job, error)

    def _failed(self, job: Job, error: BaseException) -> None:
        """A job failed inside the engine: it is done again if the cause may pass, else given up."""
        if isinstance(error, sqlite3.Error) and may_pass(error):
            self._database_failed(error)
        else:
            log.error("The engine failed at a job of %s.", job.run_id, exc_info=error)
        if may_pass(error) or not self._gave_up(job, error):
            self._put_back(job)

    def _gave_up(self, job: Job, error: BaseException) -> bool:
        """Fail a job's run, or let go of a function's timer; False when neither can be done."""
        try:
            if job.kind in OF_FUNCTIONS:
                self.timers.give_up(job, now=self.clock.now())
                return True
            run = self.ledger.store.run(job.run_id)
            if run is None or run.ended_at is not None:
                return False
            self.ledger.give_up(run, error, now=self.clock.now())
        except Exception as err:  # noqa: BLE001 - the job is done again, and comes here again
            log.error("What was due for %s could not be ended: %s", job.run_id, err)  # noqa: TRY400 - told whole before
            return False
        return True

    def _database_failed(self, error: sqlite3.Error) -> None:
        self.ledger.tally.database_errors += 1
        log.error("The database failed, and is tried again: %s", error)

    def _put_back(self, job: Job) -> None:
        """Have a job done again that failed inside the engine, as soon as the database takes that."""
        if self._drains:
            return
        try:
            self.ledger.put_back(job, due=self.clock.now() + INTERNAL_ERROR_RETRY_MS)
        except sqlite3.Error:
            asyncio.get_running_loop().call_later(INTERNAL_ERROR_RETRY_MS / 1000, self._put_back, job)

    async def _call(self, job: Job) -> None:
        """Take turns for a run as long as each leads to the next at once and nobody waits for the place."""
        going_on: Job | None = job
        with self.budget.lease() as lease:
            if job.kind == FETCH:
                await lease.hold(self.ledger.store.pending_bytes(job.run_id, job.target))
            while going_on is not None:
                going_on = await self._turn(going_on, lease)

    async def _turn(self, job: Job, lease: Lease) -> Job | None:
        run = self.ledger.store.run(job.run_id)
        if run is None or run.ended_at is not None:
            self.ledger.drop(job)
            return None
        function = self.ledger.functions.get(run.slug)
        attempts = function.max_attempts if function else 1
        call = Call(job.target, job.attempt, attempts, self.clock.now(), self.backoff)
        if function is None:
            effects: list[Effect] = [Retry(call.now + UNKNOWN_FUNCTION_RETRY_MS, call.attempt)]
            return self.ledger.apply(job, run, effects, now=call.now)
        if job.kind == FETCH:
            return self.ledger.apply(job, run, await self._fetched(job, call), now=self.clock.now())
        request = self._request(job, run, function, call)
        if isinstance(request, Finish):
            return self.ledger.apply(job, run, [request], now=call.now)
        if not lease.resize(request.size):
            size = request.size
            del run, request  # what waits holds nothing
            await lease.wait(size)
            return None if self._drains else job
        self.ledger.begin(run, function, now=call.now)
        effects, version = await self._answered(job, run, function, call, request)
        run = replace(run, sdk_version=version)
        return self.ledger.apply(job, run, effects, now=self.clock.now(), may_go_on=self._may_go_on(job))

    async def _fetched(self, job: Job, call: Call) -> list[Effect]:
        """Make the request that a step asks for; one that comes to nothing is a try of the step's."""
        detail = self.ledger.store.pending_detail(job.run_id, job.target)
        if detail is None:
            return []
        try:
            end = fetches.end_of(detail, await self.transport.send(fetches.request_of(detail)))
        except (OSError, AttributeError, KeyError, TypeError, ValueError) as err:
            end = fetches.failure(detail, str(err))
        if "error" in end and not call.is_last:
            return [backed_off(replace(call, now=self.clock.now()))]
        return [Memoize(job.target, end, attempt=call.attempt)]

    def _may_go_on(self, job: Job) -> bool:
        has_room = len(self._calls) < CONCURRENCY and not self._drains
        return has_room and not self.gates.is_waited_for(job)

    def _request(self, job: Job, run: RunRow, function: Function, call: Call) -> Outgoing | Finish:
        """What the app is to be asked, or the end of a run that has used up its steps or its state."""
        store = self.ledger.store
        memo, is_planned = self.memos.of(run.run_id), store.has_pending(run.run_id)
        state = State(memo, is_planned=is_planned, defers=store.defers(run.run_id))
        if error := overflow(steps=memo.count, size=memo.size):
            return Finish(failed=True, output=error)
        request = to_endpoint if function.endpoint_method else to_function
        return request(job, run, function, state, self.keys, now=call.now)

    async def _answered(
        self, job: Job, run: RunRow, function: Function, call: Call, request: Outgoing
    ) -> tuple[list[Effect], int]:
        try:
            answer = await self._sent(request)
        except OSError as err:
            return [self._lost(function, self._at(call, job), err)], run.sdk_version
        if self._unreachable.pop(function.url, None):
            log.info("%s is reached again.", function.url)
        return _understood(answer, self._at(call, job)), _version(answer, run.sdk_version)

    def _lost(self, function: Function, call: Call, error: OSError) -> Effect:
        match error:
            case NotReachedError():
                times, _ = self._unreachable.get(function.url, (0, 0))
                if times == 0:
                    log.warning("An app cannot be reached, and its runs wait: %s", error)
                self._unreachable[function.url] = times + 1, call.now
                return unreached(call, times)
            case StaleError():
                return Retry(call.now, call.attempt)
            case TooLargeError() | MalformedError():
                return Finish(failed=True, output={"name": "Error", "message": str(error)})
            case _:
                log.warning("A call of %s broke: %s", function.slug, error)
                return broken(call)

    async def _sent(self, request: Outgoing) -> Answer:
        """The answer to a request, counted; raises as the transport does."""
        tally, began = self.ledger.tally, time.monotonic()
        tally.requests_in_flight += 1
        try:
            answer = await self.transport.send(request)
        except OSError as err:
            tally.requests["unreachable" if isinstance(err, NotReachedError) else "broken"] += 1
            raise
        finally:
            tally.requests_in_flight -= 1
        tally.requests["answered"] += 1
        tally.request_seconds.add(time.monotonic() - began)
        return answer

    def _at(self, call: Call, job: Job) -> Call:
        """The call as it is when its answer comes: a checkpoint may have given it its attempts back."""
        attempt = self.ledger.store.attempt(job.id) if job.attempt else 0
        return replace(call, attempt=attempt, now=self.clock.now())


def _earliest(moments: Iterable[int | None]) -> int | None:
    return min((at for at in moments if at is not None), default=None)


def _understood(answer: Answer, call: Call) -> list[Effect]:
    try:
        reply = _reply(answer)
        if not _is_an_sdks(reply):
            return not_understood(answer.headers, call, "The response did not come from an Inngest SDK.")
        return effects_of(reply, call)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as err:
        why = f"an opcode has no {err}" if isinstance(err, KeyError) else str(err)
        return not_understood(answer.headers, call, f"The app's answer cannot be understood: {why}.")


def _version(answer: Answer, known: int) -> int:
    """The version of the protocol that an app speaks; SDKs from before there were versions name none."""
    named = answer.headers.get("x-inngest-req-version", "")
    if _VERSION.fullmatch(named):
        return int(named)
    return max(known, 0) if answer.headers.get(SDK_HEADER) else known


def _is_an_sdks(reply: Reply) -> bool:
    """Whether it may be: a proxy says success too, but without the header that every SDK sends."""
    return not OK <= reply.status < REDIRECTED or bool(reply.headers.get(SDK_HEADER))


def _reply(answer: Answer) -> Reply:
    """What an answer says; a streamed one (201) says it in its body, as its head was sent too early."""
    body = _parsed(answer.body)
    if answer.status != CREATED:
        return Reply(answer.status, answer.headers, body)
    if not isinstance(body, dict) or body.get("error") or not isinstance(body.get("status"), int):
        why = body.get("error") if isinstance(body, dict) else None
        raise ValueError(why or "a streamed answer needs a status and a body")
    inner, later = body.get("body"), body.get("headers") or {}
    headers = {**answer.headers, **{str(name).lower(): str(value) for name, value in later.items()}}
    return Reply(body["status"], headers, _parsed(inner) if isinstance(inner, str) else inner)


def _parsed(body: bytes | bytearray | str) -> Any:
    try:
        return parsed_json(body.strip() or b"null")
    except orjson.JSONDecodeError:
        return body if isinstance(body, str) else body.decode(errors="replace")
