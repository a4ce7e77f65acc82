"""What happens to runs: events come in, steps end, functions finish. Each public method is one transaction.

Called by `executor` (with the effects of a turn) and `api`; time comes in as an argument.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from flowctl.engine import flow_statements as flow_sql
from flowctl.engine import statements as sql
from flowctl.engine import turn
from flowctl.engine.backlog import Backlog
from flowctl.engine.defers import Defers
from flowctl.engine.ends import FAILED_RUN, SCHEDULED_RUN, end_events, engine_failure, invoker_answer
from flowctl.engine.expressions import holds
from flowctl.engine.idleness import Idleness, idle_run
from flowctl.engine.invocations import Invocation, invocation, step_invocation
from flowctl.engine.limits import MAX_STEP_BYTES, signal_conflict, step_overflow
from flowctl.engine.matching import Key, key_of
from flowctl.engine.metrics import Tally
from flowctl.engine.protocol import (
    INVOKED,
    RESERVED,
    Event,
    Function,
    InvalidEventError,
    event_matches,
)
from flowctl.engine.run_metadata import InvalidMetadataError, RunMetadata
from flowctl.engine.starts import CALL, DISCOVERY, FETCH, Starts
from flowctl.engine.store import Job, RunRow, Store, may_pass
from flowctl.engine.waits import Waits

DEDUPE_MS = 24 * 3_600_000
SLEEP, TIMEOUT = "sleep", "timeout"
JOINS_PARALLEL_STEPS = 2
"""The first version of the SDKs' protocol that waits for all parallel steps."""


@dataclass(slots=True)
class Ledger:
    """The rules by which the store changes; `wake` is called when a job may have become due."""

    store: Store
    wake: Callable[[], None]
    backlog: Backlog | None = None
    functions: dict[str, Function] = field(default_factory=dict[str, Function])
    tally: Tally = field(default_factory=Tally)
    idleness: Idleness = field(default_factory=Idleness)
    waits: Waits = field(init=False)
    starts: Starts = field(init=False)
    defers: Defers = field(init=False)
    metadata: RunMetadata = field(init=False)

    def __post_init__(self) -> None:
        self.defers, self.metadata = Defers(self.store), RunMetadata(self.store)
        self.waits = Waits(self.store)
        self.starts = Starts(
            self.store, self.waits, self.tally, lambda run, now: self.end(run, "Cancelled", {}, now)
        )

    def take_in(self, events: Sequence[Event]) -> None:
        """Keep events and do what they cause; raises OverloadedError."""
        self._check_backlog()
        with self.store.transaction():
            for event in events:
                self.intake(event)
        self.wake()

    def invoke(self, slug: str, payload: Mapping[str, Any], *, now: int) -> Invocation:
        """Run a function by its id.

        Raises InvalidEventError for a payload that is none, and OverloadedError.
        """
        self._check_backlog()
        event = invocation(slug, payload, now=now)
        with self.store.transaction():
            refusal = self.intake(event)
        self.wake()
        return Invocation(event.internal_id, refusal)

    def apply(
        self, job: Job, run: RunRow, effects: Sequence[turn.Effect], *, now: int, may_go_on: bool = False
    ) -> Job | None:
        """Do what a turn of a run came to, and end its job.

        Answers the same job taken anew when the run `may_go_on` at once and has reason to.
        """
        with self.store.transaction():
            if not self.store.is_open(run.run_id):
                self.store.db.execute(sql.DELETE_JOB, (job.id,))
                return None
            self.store.db.execute(sql.PUT_SDK_VERSION, (run.sdk_version, run.run_id))
            self.idleness.turn += 1
            for effect in effects:
                self.carry_out(run, effect, now)
            next_job = self._leave(job, effects, now, may_go_on=may_go_on)
        if next_job is None or len(effects) > 1:
            self.wake()
        return next_job

    def drop(self, job: Job) -> None:
        """End a job whose run has ended."""
        with self.store.transaction():
            self.store.db.execute(sql.DELETE_JOB, (job.id,))

    def give_up(self, run: RunRow, error: BaseException, *, now: int) -> None:
        """Fail a run that the engine itself cannot go on with; nobody is told of it if that fails too."""
        output = engine_failure(run.run_id, error)
        try:
            with self.store.transaction():
                self.end(run, FAILED_RUN, output, now)
        except Exception as err:
            if may_pass(err):
                raise
            with self.store.transaction():
                self._close(run, FAILED_RUN, output, now)
        self.wake()

    def put_back(self, job: Job, *, due: int) -> None:
        """Try a job again later, as if it had not been taken."""
        with self.store.transaction():
            self.store.db.execute(sql.RETRY_JOB, (due, job.attempt, job.id))
        self.wake()

    def _check_backlog(self) -> None:
        if self.backlog is not None:
            self.backlog.check()

    def _leave(self, job: Job, effects: Sequence[turn.Effect], now: int, *, may_go_on: bool) -> Job | None:
        retry = next((effect for effect in effects if isinstance(effect, turn.Retry)), None)
        if retry is not None:
            self.store.db.execute(sql.RETRY_JOB, (retry.due, retry.attempt, job.id))
            return None
        wait = self.idleness.wait_ms(job.run_id)
        if may_go_on and not wait and (next_job := self.store.taken_again(job, now)):
            return next_job
        self.store.done(job, now + wait)
        return None

    def keep_steps(
        self, run_id: str, steps: Sequence[turn.Memoize], asides: Sequence[turn.Aside], *, now: int
    ) -> None:
        """Remember steps of a request that goes on: the function is not called again for them."""
        for aside in asides:
            self._note(run_id, aside, now)
        for step in steps:
            self._no_longer_pending(run_id, step.step_id)
            row = (run_id, step.step_id, orjson.dumps(step.body), step.name, now, step.attempt)
            self.tally.steps += self.store.db.execute(sql.PUT_STEP, row).rowcount
        if steps:
            self.idleness.progressed(run_id)

    def begin(self, run: RunRow, function: Function, *, now: int) -> None:
        """A run's first request is about to be made."""
        if run.status == SCHEDULED_RUN:
            with self.store.transaction():
                self.store.db.execute(sql.RUN_BEGUN, (run.run_id,))
                self.starts.began(run, function, now)
            self.wake()

    def set_functions(self, functions: Mapping[str, Function], *, now: int) -> None:
        """Replace what is registered, and the timers of its schedules; the caller is in a transaction.

        The open runs of a function that is gone are cancelled: nobody could go on with them.
        """
        gone = self.functions.keys() - functions.keys()
        self.functions.clear()
        self.functions.update(functions)
        self.starts.schedule(self.functions.values(), now=now)
        for slug in gone:
            for run in self.store.open_runs(slug):
                self.end(run, "Cancelled", {}, now)

    def signal(self, name: str, data: Any, *, now: int) -> str | None:
        """End the oldest step that waits for a signal; answers its run's id, None when none waits."""
        with self.store.transaction():
            waiting = self.store.db.execute(sql.WAITS_FOR_SIGNAL, (name,)).fetchone()
            if waiting is None:
                return None
            run_id, step_id = waiting
            body = {"data": {"signal": name, "data": data}}
            self.end_step(run_id, step_id, orjson.dumps(body), now)
        self.wake()
        return run_id

    def cancel_many(self, slug: str, condition: str | None, *, after: int, before: int, now: int) -> None:
        """End a function's open runs that started in a time span and fit a condition.

        The caller is in a transaction.
        """
        for run in self.store.open_runs(slug):
            if after <= run.started_at <= before and holds(condition, {"event": run.event}):
                self.end(run, "Cancelled", {}, now)

    def cancel(self, run_id: str, *, now: int) -> bool:
        """End a run as cancelled; False when there is no such run. One that has ended stays as it is."""
        with self.store.transaction():
            run = self.store.run(run_id)
            if run is not None and run.ended_at is None:
                self.end(run, "Cancelled", {}, now)
        self.wake()
        return run is not None

    def intake(self, event: Event) -> str | None:
        """`take_in` of one event, inside the caller's transaction; answers why it invokes nothing, if so."""
        if self.store.put_copy(event):  # a request that its sender repeated
            return None
        self.store.put_event(event)
        self.tally.events += 1
        given_id = event.id != event.internal_id
        if given_id and self.store.seen_event(event, since=event.received_at - DEDUPE_MS):
            return None
        data = event.to_json()
        for run in self.waits.runs_cancelled_by(event, data):
            self.end(run, "Cancelled", {}, event.received_at)
        for run_id, step_id in self.waits.steps_met_by(event, data):
            self.end_step(run_id, step_id, orjson.dumps(data), event.received_at)
        refusal = self._start_invoked(event)
        for function in self.functions.values():
            for trigger in function.triggers:
                if event_matches(trigger.get("event") or "", event.name) and holds(
                    trigger.get("expression"), {"event": data}
                ):
                    self.starts.offer(function, event)
                    break
        return refusal

    def _start_invoked(self, event: Event) -> str | None:
        """Start the function that an event names, whoever sent it; answers why none will start for it."""
        called = event.data.get(RESERVED) if event.name == INVOKED else None
        function = self.functions.get(str(called.get("fn_id"))) if isinstance(called, Mapping) else None
        return None if function is None else self.starts.offer(function, event)

    def carry_out(self, run: RunRow, effect: turn.Effect, now: int) -> None:  # noqa: C901, PLR0912 - a flat match
        """One effect, inside the caller's transaction."""
        match effect:
            case turn.Finish(failed=failed, output=output):
                self.end(run, "Failed" if failed else "Completed", output, now)
            case turn.Memoize():
                self._memoize(run, effect, now)
            case turn.Plan(step_id=step_id):
                if self._pend(run, effect, "plan", now):
                    self.store.enqueue(run.run_id, step_id, CALL, now)
            case turn.Sleep(step_id=step_id, until=until):
                if self._pend(run, effect, "sleep", now):
                    self.store.enqueue(run.run_id, step_id, SLEEP, until)
            case turn.Wait(step_id=step_id, event=event, condition=condition, until=until):
                if self._pend(run, effect, "event", now, event=event, condition=condition):
                    self.store.enqueue(run.run_id, step_id, TIMEOUT, until)
            case turn.Signal():
                self._wait_for_signal(run, effect, now)
            case turn.Fetch(step_id=step_id, request=request):
                if self._pend(run, effect, "fetch", now, detail=orjson.dumps(request).decode()):
                    self.store.enqueue(run.run_id, step_id, FETCH, now)
            case turn.Drop(step_id=step_id):
                self._no_longer_pending(run.run_id, step_id)
                if not self.store.has_pending(run.run_id):
                    self._call_again(run, now)
            case turn.Invoke():
                self._invoke(run, effect, now)
            case turn.Defer() | turn.AbortDefer() | turn.Note():
                self._note(run.run_id, effect, now)
            case turn.Discover():
                self._call_again(run, now)
            case turn.Retry(was_sent=was_sent):  # the job itself is put back by `apply`
                self.starts.is_repeated(run, was_sent=was_sent)

    def _call_again(self, run: RunRow, now: int) -> None:
        """Call the function though no step has ended: later and later when that goes on, and not for ever."""
        if self.idleness.is_enough(run.run_id):
            self.end(run, FAILED_RUN, idle_run(), now)
        else:
            self.store.enqueue(run.run_id, DISCOVERY, CALL, now + self.idleness.wait_ms(run.run_id))

    def _note(self, run_id: str, aside: turn.Aside, now: int) -> None:
        if isinstance(aside, turn.Note):
            with contextlib.suppress(InvalidMetadataError):  # the step matters more than what is noted of it
                self.metadata.add(run_id, [aside], now=now)
        else:
            self.defers.note(run_id, aside)

    def _wait_for_signal(self, run: RunRow, effect: turn.Signal, now: int) -> None:
        """One step waits for a signal at a time; one that is replaced is left to its timeout."""
        waiting = self.store.db.execute(sql.WAITS_FOR_SIGNAL, (effect.signal,)).fetchone()
        if waiting is not None and waiting != (run.run_id, effect.step_id):
            if not effect.replaces:
                self.end(run, FAILED_RUN, signal_conflict(), now)
                return
            self.store.db.execute(sql.FORGET_SIGNAL, waiting)
        if self._pend(run, effect, "signal", now, detail=effect.signal):
            self.store.enqueue(run.run_id, effect.step_id, TIMEOUT, effect.until)

    def _memoize(self, run: RunRow, effect: turn.Memoize, now: int) -> None:
        body = orjson.dumps(effect.body)
        if len(body) > MAX_STEP_BYTES:
            self.end(run, "Failed", step_overflow(effect.name, len(body)), now)
        else:
            self.end_step(run.run_id, effect.step_id, body, now, of=effect, run=run)

    def _pend(
        self,
        run: RunRow,
        effect: turn.Plan | turn.Sleep | turn.Wait | turn.Invoke | turn.Signal | turn.Fetch,
        kind: str,
        now: int,
        *,
        event: str | None = None,
        condition: str | None = None,
        detail: str | None = None,
    ) -> bool:
        """Note a step that is to end later; False when it is known already.

        SDKs of older versions want to hear of each parallel step's end, as if all were racing.
        """
        if self.store.db.execute(sql.HAS_STEP, (run.run_id, effect.step_id)).fetchone():
            if not self.store.has_pending(run.run_id):
                self._call_again(run, now)
            return False
        race = effect.race or 0 <= run.sdk_version < JOINS_PARALLEL_STEPS
        row = (run.run_id, effect.step_id, kind, race, event, condition, detail, effect.name)
        key = key_of(condition, run.event) if event else Key()
        return self.store.db.execute(sql.PUT_PENDING, (*row, *key)).rowcount == 1

    def _invoke(self, run: RunRow, effect: turn.Invoke, now: int) -> None:
        function = self.functions.get(effect.slug)
        if function is None:
            self._step_failed(run, effect, f"could not find function with ID: {effect.slug}", now)
            return
        try:
            event = step_invocation(run, self._app_id(run), effect, now=now)
        except InvalidEventError as err:
            self._step_failed(run, effect, f"invalid payload: {err}", now)
            return
        if not self._pend(run, effect, "invoke", now, detail=event.internal_id):
            return
        self.store.put_event(event)
        refusal = self._start_invoked(event)
        if refusal is not None:
            self._step_failed(run, effect, refusal, now)
            return
        self.store.enqueue(run.run_id, f"invoke:{effect.step_id}", TIMEOUT, effect.until)

    def _step_failed(self, run: RunRow, effect: turn.Invoke, message: str, now: int) -> None:
        error = {"error": {"name": "Error", "message": message}}
        self._memoize(run, turn.Memoize(effect.step_id, error, effect.name), now)

    def _app_id(self, run: RunRow) -> str:
        function = self.functions.get(run.slug)
        return function.app_id if function else ""

    def end_step(
        self,
        run_id: str,
        step_id: str,
        body: bytes,
        now: int,
        *,
        of: turn.Memoize | None = None,
        run: RunRow | None = None,
    ) -> None:
        """Remember a step's encoded end; call the function again unless its siblings are waited for.

        The caller is in a transaction. What no answer has told (`of`) must have been pending: when it no
        longer is, another was first.
        """
        pending = self._no_longer_pending(run_id, step_id)
        if pending is None and of is None:
            return
        name = (of and of.name) or (pending[1] if pending else "")
        row = (run_id, step_id, body, name, now, of.attempt if of else 0)
        ended = self.store.db.execute(sql.PUT_STEP, row)
        if ended.rowcount == 0 and run is not None:
            self._call_again(run, now)
            return
        self.tally.steps += 1
        self.idleness.progressed(run_id)
        if pending is None or pending[0] or not self.store.has_pending(run_id):
            self.store.enqueue(run_id, DISCOVERY, CALL, now)

    def _no_longer_pending(self, run_id: str, step_id: str) -> tuple[int, str] | None:
        """Whether a step that was pending races, and its name; its timers are gone too."""
        if not self.store.has_pending(run_id):
            return None
        pending = self.store.db.execute(sql.TAKE_PENDING, (run_id, step_id)).fetchone()
        if pending is not None:
            self.store.db.execute(sql.DELETE_STEP_TIMERS, (run_id, step_id, f"invoke:{step_id}"))
        return pending

    def end(self, run: RunRow, status: str, output: Any, now: int) -> None:
        """End an open run, and tell who waits for that; the caller is in a transaction."""
        if not self._close(run, status, output, now):
            return
        self._answer_invokers(run, status, output, now)
        for event in end_events(run, status, output, now):
            self.intake(event)
        for event in self.defers.take(run, self._app_id(run), now=now):
            self.intake(event)

    def _close(self, run: RunRow, status: str, output: Any, now: int) -> bool:
        """End an open run and all that is kept for it to go on; False for one that has ended."""
        if self.store.db.execute(sql.END_RUN, (status, now, orjson.dumps(output), run.run_id)).rowcount == 0:
            return False
        self.tally.runs_ended[status] += 1
        self.idleness.progressed(run.run_id)
        self.store.db.execute(sql.DELETE_RUN_JOBS, (run.run_id,))
        self.store.db.execute(sql.DELETE_PENDING, (run.run_id,))
        self.store.db.execute(sql.DELETE_CANCELS, (run.run_id,))
        if run.gates_json is not None:
            self.store.db.execute(flow_sql.LEAVE_PLACES, (run.run_id,))
        return True

    def _answer_invokers(self, run: RunRow, status: str, output: Any, now: int) -> None:
        """End the steps that invoked this run; a batch may have several."""
        body = invoker_answer(status, output)
        for event in run.events:
            if event["name"] != INVOKED:
                continue
            for run_id, step_id in self.store.db.execute(sql.INVOKED_BY, (event["id"],)).fetchall():
                self.end_step(run_id, step_id, orjson.dumps(body), now)
