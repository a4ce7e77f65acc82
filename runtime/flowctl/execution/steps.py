"""Running one step durably: one operation a try, with its record and events committed in the body."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from flowctl import events, telemetry
from flowctl.context import BailSignal, ContextFacts, StepContext, SuspendSignal
from flowctl.errors import FlowctlError, ValidationError
from flowctl.events import WorkflowEvent
from flowctl.execution.outcome import Outcome, error_of, is_retriable
from flowctl.execution.paths import without_meta
from flowctl.execution.walk import Scope, Walk
from flowctl.execution.writer import StreamWriter
from flowctl.request_context import RequestContext
from flowctl.schema import NotJSONError, check_state_size, own_copy, parse, parse_leniently, to_json
from flowctl.snapshot import StepResult
from flowctl.step import Step
from flowctl.storage.base import RecordWrite

Decide = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Call:
    """One execution of a step: what it is given, and where in the run it stands."""

    scope: Scope
    step: Step[Any, Any]
    key: str
    op: str
    payload: Any
    typed_input: Callable[[], Any] = lambda: None
    iteration: int = 0
    decide: Decide | None = None
    announced: bool = True
    on_end: Callable[[Outcome], Sequence[WorkflowEvent]] | None = None

    @property
    def parses_input(self) -> bool:
        """Whether the input comes from the payload (a mapping gets the typed output before it)."""
        return self.step.component != "MAPPING"


async def run_step(walk: Walk, call: Call) -> Outcome:
    """The step's outcome after at most 1 + retries tries."""
    delay = call.scope.workflow.options.retry.delay
    attempt, failed_at = walk.failed_tries(call.key)
    while True:
        if attempt and delay:
            await walk.ops.sleep(f"{call.op}.delay.{attempt}", failed_at + delay)
        outcome = await _try(walk, call, attempt=attempt)
        if _is_last(call, outcome, attempt) or walk.canceled:
            return outcome
        attempt, failed_at = attempt + 1, outcome.record.ended_at or 0


async def _try(walk: Walk, call: Call, *, attempt: int) -> Outcome:
    op = f"{call.op}.try.{attempt}" if attempt else call.op
    memo = await walk.run(op, call.key, partial(_body, walk, call, op, attempt), carries=True)
    outcome = walk.ended.pop(op, None) or Outcome.from_memo(memo, call.payload)
    walk.take(op, call.key, outcome)
    walk.tried(call.key, None if _is_last(call, outcome, attempt) else outcome, attempt)
    return outcome


async def _body(walk: Walk, call: Call, op: str, attempt: int) -> dict[str, Any]:
    done = await walk.finished(op, call.key)
    if done is not None:
        return walk.taken_up(op, call.key, done, call.payload)
    before = walk.records.get(call.key)
    begun, late = _begun(walk, call, before, attempt), walk.ops.unremembered(call.key)
    call_id = walk.journal.new_id()
    started = [(f"{op}:start", events.step_started(walk.run_id, call.key, begun, call_id))]
    first = call.announced and not attempt
    walk.hold({call.key: RecordWrite(begun, late=late)}, started if first else ())
    try:
        await walk.let_others_begin()
        with telemetry.step_span(walk.name, call.key, attempt) as span:
            outcome = await _execute(walk, call, op, begun=begun, before=before, attempt=attempt)
            span.ended(walk.name.workflow_id, call.key, outcome.record)
    except BaseException:
        walk.held.drop()
        raise
    walk.take(op, call.key, outcome)
    walk.ended[op] = outcome
    last = _is_last(call, outcome, attempt)
    walk.tried(call.key, None if last else outcome, attempt)
    ended = _ending(walk, call, outcome, call_id) if last else []
    memo = outcome.to_memo() if walk.journal.repeats else {}
    finished = [(f"{op}:{event.type}", event) for event in ended]
    written = {call.key: RecordWrite(outcome.record, op, memo or None, late)}
    await walk.commit(records=written, events=finished)
    return memo


def _ending(walk: Walk, call: Call, outcome: Outcome, call_id: str) -> Sequence[WorkflowEvent]:
    if call.on_end is not None:
        return call.on_end(outcome)
    return events.step_ended(walk.run_id, call.key, outcome.record, call_id) if call.announced else []


Marked = tuple[StepResult, Sequence[WorkflowEvent], bool | None]


async def mark(
    walk: Walk,
    op: str,
    key: str,
    payload: Any,
    make: Callable[[int], Awaitable[Marked]],
    *,
    anew: bool = False,
    repeatable: bool = True,
) -> Outcome:
    """One operation without a step's code: a record, its events, and maybe a decision.

    With `anew` the records below this one are forgotten: those of an earlier iteration of a nested workflow.
    """

    async def body() -> dict[str, Any]:
        done = await walk.finished(op, key)
        if done is not None:
            return walk.taken_up(op, key, done, payload)
        record, emitted, again = await make(walk.journal.now())
        outcome = walk.ended[op] = Outcome(record, again=again)
        walk.take(op, key, outcome)
        memo = outcome.to_memo() if walk.journal.repeats else {}
        status = "waiting" if record.status == "waiting" else "running"
        named = [(f"{op}:{event.type}", event) for event in emitted]
        written = {key: RecordWrite(record, op, memo or None)} | ({f"{key}/": None} if anew else {})
        await walk.commit(status=status, records=written, events=named)
        await walk.let_others_begin()
        return memo

    memo = await walk.run(op, key, body, repeatable=repeatable)
    outcome = walk.ended.pop(op, None) or Outcome.from_memo(memo, payload)
    walk.take(op, key, outcome)
    return outcome


def _is_last(call: Call, outcome: Outcome, attempt: int) -> bool:
    retry = call.scope.workflow.options.retry
    retries = retry.attempts if call.step.retries is None else call.step.retries
    return outcome.record.status != "failed" or not outcome.retriable or outcome.aborted or attempt >= retries


def _begun(walk: Walk, call: Call, before: StepResult | None, attempt: int) -> StepResult:
    now = walk.journal.now()
    counts = {"iterationCount": call.iteration, "retryCount": attempt}
    metadata = {name: count for name, count in counts.items() if count} or None
    if before is not None and before.status == "suspended" and walk.leg.resumes(call.key):
        return StepResult(
            "running",
            payload=call.payload,
            started_at=before.started_at,
            resume_payload=walk.leg.resume_data,
            resumed_at=now,
            metadata=metadata,
        )
    return StepResult("running", payload=call.payload, started_at=now, metadata=metadata)


async def _execute(
    walk: Walk, call: Call, op: str, *, begun: StepResult, before: StepResult | None, attempt: int
) -> Outcome:
    if walk.canceled:
        return Outcome(replace(begun, status="canceled", ended_at=walk.journal.now()))
    context = _Context(walk, call, op, begun=begun, before=before, attempt=attempt)
    try:
        return await context.run()
    except (Exception, asyncio.CancelledError, SystemExit) as err:
        if isinstance(err, asyncio.CancelledError) and _is_being_canceled():
            raise
        return replace(_failed(walk, call, begun, err), aborted=context.aborted)


def _is_being_canceled() -> bool:
    """Whether this process stops the leg itself; otherwise the user's code let a cancellation out."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _failed(walk: Walk, call: Call, begun: StepResult, err: BaseException) -> Outcome:
    error = error_of(err)
    walk.env.logger.error(
        "Step %r of workflow %r failed: %s", call.key, call.scope.workflow.id, error.message, exc_info=err
    )
    record = replace(begun, status="failed", error=error, ended_at=walk.journal.now())
    return Outcome(record, retriable=is_retriable(err))


class _Context:
    """One try of user code: builds its context, runs it, and turns what happened into an outcome."""

    def __init__(
        self, walk: Walk, call: Call, op: str, *, begun: StepResult, before: StepResult | None, attempt: int
    ) -> None:
        self.walk, self.call, self.op, self.begun, self.before = walk, call, op, begun, before
        self.state_changes: dict[str, Any] = {}
        self.writes = StreamWriter(walk, call.key, op, attempt)
        self.context_before = walk.request_context.to_json()
        self.request_context = RequestContext(own_copy(self.context_before))
        self.attempt = attempt
        self.aborted = False

    async def run(self) -> Outcome:
        """Run the step's code to its end, a suspension or an early end."""
        facts = self._facts()
        ctx: StepContext[Any] = StepContext(facts)
        try:
            output = await _call_user_code(self.call.step, ctx)
            _refuse_open_calls(facts)
            return await self._succeeded(output, facts)
        except BaseException as err:
            signal = _signal_in(err)
            if signal is None:
                raise
            return await self._left(signal, facts)
        finally:
            self.aborted = bool(facts.aborted)
            await self.writes.flushed()

    def _facts(self) -> ContextFacts:
        walk, call, schemas = self.walk, self.call, self.call.step.schemas
        resumed = self.begun.resumed_at is not None
        resume_data = own_copy(walk.leg.resume_data) if resumed else None
        return ContextFacts(
            input_data=self._input(),
            resume_data=parse(schemas.resume, resume_data, what="Invalid resume data") if resumed else None,
            suspend_data=self._suspend_data(),
            state=parse_leniently(self._state_schema, own_copy(walk.state)),
            request_context=self.request_context,
            writer=self.writes,
            run_id=walk.run_id,
            workflow_id=call.scope.workflow.id,
            resource_id=walk.env.resource_id,
            retry_count=self.attempt,
            iteration_count=call.iteration,
            abort_signal=walk.env.abort_signal,
            logger=walk.env.logger,
            engine=walk.env.engine,
            idempotency_key=f"{walk.run_id}:{call.op}",
            app=walk.env.app,
            init_data=lambda: parse_leniently(call.scope.workflow.schemas.input, own_copy(call.scope.input)),
            step_result=lambda id: own_copy(walk.output_of(call.scope, id)),
            set_state=self._set_state,
            may_leave=call.step.is_async,
        )

    def _input(self) -> Any:
        if not self.call.parses_input:
            return self.call.typed_input()
        schema, payload = self.call.step.schemas.input, own_copy(self.call.payload)
        if not self._validates:
            return parse_leniently(schema, payload)
        context_schema = self.call.step.schemas.request_context
        parse(context_schema, self.context_before, what="Step request context validation failed")
        return parse(schema, payload, what="Step input validation failed")

    @property
    def _state_schema(self) -> Any:
        return self.call.step.schemas.state or self.call.scope.workflow.schemas.state

    @property
    def _validates(self) -> bool:
        return self.call.scope.validates

    def _suspend_data(self) -> Any:
        payload = own_copy(without_meta(self.before.suspend_payload)) if self.before else None
        return None if payload is None else parse_leniently(self.call.step.schemas.suspend, payload)

    def _set_state(self, state: Any) -> None:
        given = to_json(state)
        if not isinstance(given, dict):
            raise FlowctlError(f"ctx.set_state takes an object of the keys to change, not {state!r}.")
        changes: dict[str, Any] = self.state_changes | given
        schema, whole = self._state_schema, {**self.walk.state, **changes}
        check_state_size(whole)
        if self._validates:
            parse(schema, whole, what="Step state data validation failed")
        self.state_changes = changes

    async def _succeeded(self, output: Any, facts: ContextFacts) -> Outcome:
        schema = self.call.step.schemas.output
        plain = _json_output(self.call, output)
        if schema is not None:
            plain = to_json(
                schema.parse(plain, what=f"Step output validation failed for {self.call.step.id!r}")
            )
        try:
            again = await self._decision(plain)
        except Exception as err:  # noqa: BLE001 - the loop's condition is user code; trying the step again would not mend it
            return replace(_failed(self.walk, self.call, self.begun, err), retriable=False)
        record = self.begun.succeeded(plain, self.walk.journal.now())
        return self._outcome(record, facts, again=again)

    async def _decision(self, output: Any) -> bool | None:
        if self.call.decide is None:
            return None
        decided = self.call.decide(output)
        return bool(await decided if inspect.isawaitable(decided) else decided)

    async def _left(self, signal: SuspendSignal | BailSignal, facts: ContextFacts) -> Outcome:
        now = self.walk.journal.now()
        if isinstance(signal, BailSignal):
            output = _json_output(self.call, signal.result)
            return self._outcome(self.begun.succeeded(output, now), facts, bailed=True)
        payload = to_json(signal.payload)
        schema = self.call.step.schemas.suspend
        try:
            if schema is not None and payload is not None:
                payload = to_json(schema.parse(payload, what="Step suspend data validation failed"))
        except ValidationError as err:
            return _failed(self.walk, self.call, self.begun, err)
        record = replace(self.begun, status="suspended", suspend_payload=payload or {}, suspended_at=now)
        return self._outcome(record, facts, labels=signal.labels)

    def _outcome(
        self,
        record: StepResult,
        facts: ContextFacts,
        *,
        labels: tuple[str, ...] = (),
        bailed: bool = False,
        again: bool | None = None,
    ) -> Outcome:
        before, after = self.context_before, self.request_context.to_json()
        changed = {k: v for k, v in after.items() if k not in before or before[k] != v}
        deleted = tuple(k for k in before if k not in after)
        changes_any = self.state_changes or changed or deleted
        return Outcome(
            record,
            state=self.state_changes,
            context_set=changed,
            context_deleted=deleted,
            labels=labels,
            bailed=bailed,
            aborted=bool(facts.aborted),
            again=again,
            order=self.walk.changes.next(self.walk.journal.now()) if changes_any else 0,
        )


async def _call_user_code(step: Step[Any, Any], ctx: StepContext[Any]) -> Any:
    if step.is_async:
        return await step.execute(ctx)
    output = await asyncio.to_thread(step.execute, ctx)
    return await output if inspect.isawaitable(output) else output


def _refuse_open_calls(facts: ContextFacts) -> None:
    for name in facts.open_calls.values():
        raise FlowctlError(f"ctx.{name}() was called but not awaited: write `await ctx.{name}(…)`.")


def _signal_in(err: BaseException) -> SuspendSignal | BailSignal | None:
    if isinstance(err, SuspendSignal | BailSignal):
        return err
    if isinstance(err, BaseExceptionGroup):
        return next((found for inner in err.exceptions if (found := _signal_in(inner))), None)
    return None


def _json_output(call: Call, output: Any) -> Any:
    try:
        return to_json(output)
    except NotJSONError as err:
        raise NotJSONError(f"The output of step {call.step.id!r} is no JSON data: {err}") from None
