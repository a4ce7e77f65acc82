"""Inngest as the engine: each workflow is two functions whose steps are the walk's durable operations.

`workflow.<id>` runs first legs, `workflow.<id>.continue` later ones. Called by `app` and `run`; calls the
same execution as the local runner.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import inngest

from flowctl.context import AbortSignal, EngineInfo
from flowctl.errors import ValidationError
from flowctl.events import WorkflowEvent, run_finished
from flowctl.execution.callbacks import is_persisted
from flowctl.execution.executor import end_of, execute_leg
from flowctl.execution.plans import Leg, dispatch_body, plan_continuation
from flowctl.execution.walk import Environment, Walk
from flowctl.runners.checkpoints import Checkpoints, StaleDispatchError
from flowctl.runners.engine_api import EngineApi
from flowctl.runners.engine_call import ReceiveCall, received
from flowctl.runners.functions import transforms_output
from flowctl.runners.inngest_ops import InngestOps
from flowctl.runners.journal import StoredJournal
from flowctl.runners.limits import Budget, RollOver
from flowctl.runners.lines import Lines
from flowctl.runners.parts import names_part, run_part
from flowctl.runners.publisher import Publisher
from flowctl.runners.turns import FIRST_MARK
from flowctl.schema import parse, to_json
from flowctl.snapshot import ACTIVE, RunError, RunStatus, Snapshot, StepResult
from flowctl.storage.base import Claim, Inside, RecordWrite

if TYPE_CHECKING:
    from flowctl.app import App
    from flowctl.workflow import Workflow

FIRST_LEG = 1
LOST_WORKER_RETRIES = 10
CANCEL_POLL_SECONDS = 1.0


@dataclass(slots=True)
class _Journal(StoredJournal):
    """A journal that also publishes to the run's realtime channel."""

    publisher: Publisher | None = None

    async def commit(
        self,
        snapshot: Snapshot | Inside,
        *,
        records: Mapping[str, RecordWrite | None],
        events: Sequence[tuple[str, WorkflowEvent]],
        is_shown: bool,
    ) -> bool:
        """See Journal."""
        stored = await StoredJournal.commit(self, snapshot, records=records, events=events, is_shown=is_shown)
        if not stored:
            await self.check_execution()
        if stored and self.publisher is not None:
            for _, event in events:
                self.publisher.put(event)
        return stored

    async def check_execution(self) -> None:
        """After a refused write: raise StaleDispatchError, unless it was refused since the leg is over."""
        if self.execution is not None and await self.ended() is None:
            raise StaleDispatchError(f"Another request executes run {self.run_id!r}.")


@dataclass(frozen=True, slots=True)
class _Planned:
    """The leg that a request is for, and its number; no leg when the run has moved on."""

    run_id: str
    leg: Leg | None
    number: int
    status: str = ""


_Plan = Callable[[inngest.Context, InngestOps], Awaitable[_Planned]]


@dataclass(slots=True)
class BoundWorkflow:
    """A workflow and the client that runs it."""

    app: App
    workflow: Workflow[Any, Any]
    client: inngest.Inngest
    api: EngineApi
    signals: dict[str, set[AbortSignal]] = field(default_factory=dict[str, set[AbortSignal]])
    publishers: WeakValueDictionary[tuple[str, int], Publisher] = field(
        default_factory=WeakValueDictionary[tuple[str, int], Publisher]
    )

    @property
    def name(self) -> str:
        """The function id and event name of first legs."""
        return f"workflow.{self.workflow.id}"

    def functions(self) -> list[inngest.Function[Any]]:
        """The two functions that run this workflow's legs."""
        options = self.workflow.options
        for nested in self.workflow.nested:
            if nested.options.flow_control and not nested.runs_apart:
                self.app.logger.warning(
                    "Workflow %r is debounced, so its flow control (%s) holds for runs of its own only: "
                    "nested in %r, which waits for each of its starts, it runs as part of that one.",
                    nested.id,
                    ", ".join(nested.options.flow_control),
                    self.workflow.id,
                )
        cancel = [inngest.Cancel(event=f"cancel.{self.name}", if_exp="event.data.runId == async.data.runId")]
        if self.workflow.runs_apart:
            of_parent = "event.data.part.name == async.data.part.name"
            cancel.append(inngest.Cancel(event=f"cancel.{self.name}.part", if_exp=of_parent))
        crons = [inngest.TriggerCron(cron=cron) for cron in options.cron]
        first = self.client.create_function(
            fn_id=self.name,
            name=self.workflow.description or self.workflow.id,
            trigger=[inngest.TriggerEvent(event=self.name), *crons],
            cancel=cancel,
            retries=LOST_WORKER_RETRIES,
            on_failure=self._failed,
            middleware=[ReceiveCall],
            **options.flow_control,
        )(self._first_leg)
        concurrency = {k: v for k, v in options.flow_control.items() if k == "concurrency"}
        later = self.client.create_function(
            fn_id=f"{self.name}.continue",
            name=f"{self.workflow.id} (continue)",
            trigger=inngest.TriggerEvent(event=f"{self.name}.continue"),
            cancel=cancel,
            retries=LOST_WORKER_RETRIES,
            on_failure=self._failed,
            middleware=[ReceiveCall],
            **concurrency,
        )(self._later_leg)
        return [first, later]

    def abort(self, run_id: str) -> None:
        """Fire the abort signal of steps of this process that run for this run."""
        for signal in self.signals.get(run_id, ()):
            signal.set()

    def publisher(self, run_id: str) -> Publisher:
        """What sends events to a run's channel: shared, so that a leg's events follow the last one's."""
        key, channel = (run_id, id(asyncio.get_running_loop())), f"workflow:{self.workflow.id}:{run_id}"
        return self.publishers.setdefault(key, Publisher(self.api, channel, self.app.logger))

    async def _first_leg(self, ctx: inngest.Context) -> Any:
        return await self._carry_out(ctx, self._first_plan)

    async def _later_leg(self, ctx: inngest.Context) -> Any:
        return await self._carry_out(ctx, self._later_plan)

    async def _carry_out(self, ctx: inngest.Context, plan: _Plan) -> Any:
        ops = self._ops(ctx)
        self.api.note_request()
        work = run_part(self.app, ctx, ops) if names_part(ctx) else self._leg(ctx, ops, plan)
        return await ops.carry_out(work)

    async def _leg(self, ctx: inngest.Context, ops: InngestOps, plan: _Plan) -> Any:
        planned = await plan(ctx, ops)
        if planned.leg is None:
            ended = await self._known_end(planned)
        else:
            ended = await self._execute(ctx, ops, planned.leg, planned.number)
        if ended["status"] in ACTIVE:
            await self._deliver_next(planned.run_id)
        if ended["status"] == "failed":
            message = ended.get("error", {}).get("message", "The workflow failed.")
            raise inngest.NonRetriableError(message, quiet=True)
        return ended

    async def _known_end(self, planned: _Planned) -> dict[str, Any]:
        """What is to be answered for a leg that is over."""
        stored = await self.app.storage.get_run(self.workflow.id, planned.run_id)
        if stored is None or stored.status not in {"success", "failed"}:
            return {"status": planned.status, "runId": planned.run_id}
        return end_of(stored.snapshot)

    def _ops(self, ctx: inngest.Context) -> InngestOps:
        """The durable operations of the request that is being answered."""
        got = received()
        call, limits = got.call, self.app.leg_limits
        ops = InngestOps(
            ctx,
            got.memos,
            self.app.clock,
            Budget(limits, steps=got.memos.size, size=got.size),
            Checkpoints(self.api, call),
        )
        if call is not None and call.target is None:
            at_once = call.runs_at_once or ops.brings(FIRST_MARK)
            ops.in_line = (
                at_once and self.api.takes_checkpoints and not transforms_output(self.client.middleware)
            )
            ops.may_roll_over = True
            ops.lines = Lines() if ops.in_line else Lines.of(call, limits)
        return ops

    async def _first_plan(self, ctx: inngest.Context, ops: InngestOps) -> _Planned:
        data = ctx.event.data
        if not isinstance(data.get("leg"), int):
            memo = await ops.plan("plan", partial(self._claim_manual, ctx), repeatable=True)
            return await self._stored_plan(ctx.run_id, memo["leg"], {"kind": "start"})
        if "inputData" not in data:
            return await self._later_plan(ctx, ops)
        snapshot = Snapshot(
            str(data["runId"]),
            status="running",
            input=data["inputData"],
            state=dict(_mapping(data.get("initialState"))),
            request_context=dict(_mapping(data.get("requestContext"))),
        )
        return await self._unless_moved_on(_Planned(snapshot.run_id, Leg.from_json(data, snapshot), 1))

    async def _unless_moved_on(self, planned: _Planned) -> _Planned:
        """No leg when the run has ended or is in a later one: this request repeats one that was lost."""
        known = await (await self.app.opened()).get_status(self.workflow.id, planned.run_id)
        status, number = known or ("deleted", 0)
        is_over = number != planned.number or status not in ACTIVE
        return _Planned(planned.run_id, None, 0, status) if is_over else planned

    async def _later_plan(self, ctx: inngest.Context, _: InngestOps) -> _Planned:
        data = ctx.event.data
        return await self._stored_plan(str(data["runId"]), data["leg"], data)

    async def _stored_plan(self, run_id: str, number: Any, leg: Mapping[str, Any]) -> _Planned:
        """From what is stored as it was when the leg began, unless the run has moved on meanwhile."""
        storage = await self.app.opened()
        stored = await storage.get_earlier_run(self.workflow.id, run_id)
        if stored is None or stored.leg != number or stored.status not in ACTIVE:
            return _Planned(run_id, None, 0, stored.status if stored else "deleted")
        return _Planned(run_id, Leg.from_json(leg, stored.snapshot), number)

    async def _claim_manual(self, ctx: inngest.Context) -> dict[str, Any]:
        """Begin a run for an event sent by hand or a cron: it has the engine's run id."""
        data, schemas, storage = ctx.event.data, self.workflow.schemas, await self.app.opened()
        given = data.get("inputData", self.workflow.options.cron_input)
        try:
            snapshot = Snapshot(
                ctx.run_id,
                status="running",
                input=to_json(parse(schemas.input, to_json(given), what="Invalid input data")),
                state=to_json(
                    parse(schemas.state, _mapping(data.get("initialState")), what="Invalid initial state")
                ),
                request_context=dict(_mapping(data.get("requestContext"))),
                serialized_step_graph=self.workflow.serialized_step_graph,
                timestamp=self.app.clock.now(),
            )
        except ValidationError as err:
            raise inngest.NonRetriableError(
                f'{err}\nThe event takes {{"data": {{"inputData": …}}}}.', quiet=True
            ) from None
        run = (self.workflow.id, ctx.run_id)
        pending = replace(snapshot, status="pending")
        stored = await storage.create_run(
            *run,
            resource_id=None,
            snapshot=pending,
            now=self.app.clock.now(),
            is_shown=self._is_persisted("pending"),
        )
        claim = Claim(
            *run,
            frozenset({"pending"}),
            self.app.clock.now(),
            snapshot,
            engine="inngest",
            is_shown=self._is_persisted("running"),
        )
        leg = await storage.claim(claim) if stored.status == "pending" else None
        return {"leg": leg or stored.leg}

    async def _execute(self, ctx: inngest.Context, ops: InngestOps, leg: Leg, number: int) -> Any:
        graph = self.workflow.serialized_step_graph
        begun = replace(leg.snapshot, serialized_step_graph=graph, engine_run_id=ctx.run_id)
        leg = replace(leg, snapshot=begun)
        resource_id = ctx.event.data.get("resourceId")
        async with self.journal(leg.snapshot.run_id, number) as journal, self.watched(journal) as signal:
            env = Environment(
                self.app,
                EngineInfo("inngest"),
                self.app.logger,
                signal,
                str(resource_id) if resource_id else None,
                ctx.event.ts or self.app.clock.now(),
            )
            ops.take_turns(self.app.storage, self.workflow.id, leg.snapshot.run_id, journal.take_up)
            walk = Walk.of(self.workflow, leg, ops, journal, env)
            try:
                return await execute_leg(walk)
            except RollOver:
                return await self._roll_over(walk, journal)

    async def _roll_over(self, walk: Walk, journal: _Journal) -> dict[str, Any]:
        """Begin the next leg where this one stands: claimed, and its event stored, in one transaction."""
        stands = replace(walk.snapshot(), engine_run_id=None)
        next_leg = plan_continuation(walk.leg, stands, walk.suspended_again())
        claimed = await self.app.storage.claim(
            Claim(
                self.workflow.id,
                walk.run_id,
                ACTIVE,
                self.app.clock.now(),
                next_leg.snapshot,
                engine="inngest",
                dispatch=dispatch_body(next_leg, walk.env.resource_id),
                leg=journal.leg,
                is_shown=walk.is_persisted("running"),
                execution=journal.execution,
            )
        )
        if claimed is None:
            await journal.check_execution()
        return {"status": "running", "runId": walk.run_id, "leg": journal.leg + 1}

    async def _deliver_next(self, run_id: str) -> None:
        """Send the event of a run's newest leg, unless that was done."""
        for dispatch in await self.app.storage.undelivered():
            if (dispatch.workflow_id, dispatch.run_id) == (self.workflow.id, run_id):
                await self.app.inngest_runner.deliver(dispatch)

    @contextlib.asynccontextmanager
    async def journal(self, run_id: str, leg: int) -> AsyncGenerator[_Journal]:
        """A journal whose events are published by the time that the request is answered."""
        app, storage, publisher = self.app, await self.app.opened(), self.publisher(run_id)
        try:
            yield _Journal(storage, app.feed, self.workflow.id, run_id, leg, app.clock, publisher=publisher)
        finally:
            await publisher.flushed()

    @contextlib.asynccontextmanager
    async def watched(self, journal: StoredJournal) -> AsyncGenerator[AbortSignal]:
        """A signal that fires when the run is canceled, from here or another process."""
        signal, run_id = AbortSignal(), journal.run_id
        self.signals.setdefault(run_id, set()).add(signal)
        watcher = asyncio.create_task(_watch_cancel(journal, signal))
        try:
            yield signal
        finally:
            watcher.cancel()
            self.signals[run_id].discard(signal)
            if not self.signals[run_id]:
                del self.signals[run_id]

    async def _failed(self, ctx: inngest.Context) -> None:
        """The engine gave up on a leg (its worker was lost too often): the run has failed."""
        origin, error = _mapping(ctx.event.data.get("event")), _mapping(ctx.event.data.get("error"))
        data = _mapping(origin.get("data"))
        if "part" in data:
            return  # the parent is told by the engine
        run_id = str(data.get("runId") or ctx.event.data.get("run_id"))
        storage = await self.app.opened()
        stored = await storage.get_run(self.workflow.id, run_id)
        if stored is None or stored.status not in ACTIVE or stored.leg != data.get("leg", FIRST_LEG):
            return
        why = RunError(str(error.get("name", "Error")), str(error.get("message", "The function failed.")))
        finished = run_finished(run_id, status="failed", result=None, error=why)
        snapshot = replace(stored.snapshot, status="failed", error=why)
        async with self.journal(run_id, stored.leg) as journal:
            is_shown = self._is_persisted("failed", snapshot.records)
            await journal.commit(snapshot, records={}, events=[("finish", finished)], is_shown=is_shown)

    def _is_persisted(self, status: RunStatus, records: Mapping[str, StepResult] | None = None) -> bool:
        return is_persisted(self.workflow, status, records or {}, self.app.logger)


async def _watch_cancel(journal: StoredJournal, signal: AbortSignal) -> None:
    while not signal.is_set():
        await asyncio.sleep(CANCEL_POLL_SECONDS)
        if await journal.ended() == "canceled":
            signal.set()


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
