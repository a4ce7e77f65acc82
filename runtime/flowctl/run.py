"""The handle on one run: validate, plan, launch the leg, read the result.

Called by users and the server; calls `execution.plans` (pure), `launch` and storage.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Generic

from typing_extensions import TypeVar

from flowctl.app import default_app
from flowctl.errors import (
    AlreadyClaimedError,
    NotActiveError,
    RunNotFoundError,
    StepNotFoundError,
    StillRunningError,
)
from flowctl.events import WorkflowEvent, run_canceled
from flowctl.execution.callbacks import RunInfo, info_of, is_persisted, notify_ended, notify_started
from flowctl.execution.paths import leaf_paths
from flowctl.execution.plans import Leg, plan_restart, plan_resume, plan_start, same_suspension
from flowctl.execution.time_travel import Records, Travel, plan_time_travel
from flowctl.launch import NEVER_STARTED, is_under_way, launch, started_before
from flowctl.request_context import RequestContext
from flowctl.result import RunResult
from flowctl.schema import check_state_size, parse, to_json
from flowctl.snapshot import ACTIVE, RunStatus, Snapshot, StepResult
from flowctl.step import Step
from flowctl.storage.base import Storage
from flowctl.stored import result_of, with_nested_rows
from flowctl.stored_run import StoredRun
from flowctl.stream import RunStream

if TYPE_CHECKING:
    from flowctl.app import App
    from flowctl.workflow import Workflow

Out = TypeVar("Out", default=Any)
_AT_REST: frozenset[RunStatus] = frozenset(
    {"pending", "suspended", "success", "failed", "canceled", "paused"}
)
_SUSPENDED: frozenset[RunStatus] = frozenset({"suspended"})
_PAUSED: frozenset[RunStatus] = frozenset({"paused"})
SETTLE_SECONDS = 2.0
SETTLE_POLL_SECONDS = 0.025


class Run(Generic[Out]):
    """One run of a workflow. Made by `Workflow.create_run`; may be made again from its id."""

    def __init__(
        self,
        workflow: Workflow[Any, Out],
        app: App,
        run_id: str,
        resource_id: str | None,
        *,
        pending: StoredRun | None = None,
    ) -> None:
        self.workflow, self.app, self.run_id, self.resource_id = workflow, app, run_id, resource_id
        self._pending = pending

    @property
    def workflow_id(self) -> str:
        """The workflow's id."""
        return self.workflow.id

    async def start(
        self,
        input_data: Any = None,
        initial_state: Any = None,
        request_context: RequestContext | Mapping[str, Any] | None = None,
        *,
        per_step: bool = False,
    ) -> RunResult[Out]:
        """Run to the first stop, however long that takes, and answer where the run stands.

        A step that fails makes a result with status "failed", and raises nothing here.

        Raises ValidationError (nothing is started) and StillRunningError (the run was started before).
        """
        await (await self._begin(input_data, initial_state, request_context, per_step=per_step))
        return await self._result()

    async def start_async(
        self,
        input_data: Any = None,
        initial_state: Any = None,
        request_context: RequestContext | Mapping[str, Any] | None = None,
        *,
        per_step: bool = False,
    ) -> str:
        """As `start`, but answers the run's id at once."""
        await self._begin(input_data, initial_state, request_context, per_step=per_step)
        return self.run_id

    def stream(
        self,
        input_data: Any = None,
        initial_state: Any = None,
        request_context: RequestContext | Mapping[str, Any] | None = None,
        *,
        per_step: bool = False,
        close_on_suspend: bool = True,
    ) -> RunStream[Out]:
        """As `start`, as an async iterable of events."""

        async def begin() -> None:
            await self._begin(input_data, initial_state, request_context, per_step=per_step)

        return RunStream(self, begin, close_on_suspend=close_on_suspend)

    async def resume(
        self,
        step: Any = None,
        resume_data: Any = None,
        label: str | None = None,
        for_each_index: int | None = None,
        request_context: RequestContext | Mapping[str, Any] | None = None,
        *,
        per_step: bool = False,
    ) -> RunResult[Out]:
        """Go on with a suspended step and answer where the run stands then.

        Raises NotSuspendedError, AmbiguousStepError, ValidationError (nothing is consumed) and
        AlreadyClaimedError (another resume was first).
        """
        task = await self._resume(
            step, resume_data, label, for_each_index, request_context, per_step=per_step
        )
        await task
        return await self._result()

    async def resume_async(
        self,
        step: Any = None,
        resume_data: Any = None,
        label: str | None = None,
        for_each_index: int | None = None,
        request_context: RequestContext | Mapping[str, Any] | None = None,
        *,
        per_step: bool = False,
    ) -> str:
        """As `resume`, but answers the run's id at once."""
        await self._resume(step, resume_data, label, for_each_index, request_context, per_step=per_step)
        return self.run_id

    def resume_stream(
        self,
        step: Any = None,
        resume_data: Any = None,
        label: str | None = None,
        for_each_index: int | None = None,
        request_context: RequestContext | Mapping[str, Any] | None = None,
        *,
        per_step: bool = False,
    ) -> RunStream[Out]:
        """As `resume`, as an async iterable of this leg's events."""

        async def begin() -> None:
            await self._resume(step, resume_data, label, for_each_index, request_context, per_step=per_step)

        return RunStream(self, begin, close_on_suspend=True)

    async def restart(
        self, request_context: RequestContext | Mapping[str, Any] | None = None
    ) -> RunResult[Out]:
        """Go on with a run whose process is gone; finished steps do not run again.

        Values of `request_context` come over those that the run has.
        Raises NotActiveError for a run that is not running, StillRunningError while its process lives or
        Inngest executes it, EngineError when Inngest does not say.
        """
        await (await self._restart(request_context))
        return await self._result()

    async def restart_async(self, request_context: RequestContext | Mapping[str, Any] | None = None) -> str:
        """As `restart`, but answers the run's id at once."""
        await self._restart(request_context)
        return self.run_id

    async def _restart(self, request_context: Any) -> Awaitable[Any]:
        stored = await self._stored()
        if stored.status not in ACTIVE:
            raise NotActiveError(f"This workflow run was not active: run {self.run_id!r} is {stored.status}.")
        if await is_under_way(self, stored):
            raise StillRunningError(f"Run {self.run_id!r} is still running in another task or process.")
        whole = await self._whole(stored)
        leg = plan_restart(self._with_context(whole.snapshot, request_context))
        return await launch(self, leg, expected=ACTIVE, records=_added(whole, stored), newest=stored.leg)

    async def time_travel(
        self,
        step: Any,
        input_data: Any = None,
        resume_data: Any = None,
        context: Records | None = None,
        initial_state: Any = None,
        *,
        nested_steps_context: Mapping[str, Records] | None = None,
        request_context: RequestContext | Mapping[str, Any] | None = None,
        per_step: bool = False,
    ) -> RunResult[Out]:
        """Run again from a step on, with what came before as it was recorded or as `context` says.

        `step` is a Step, an id, a dotted id or a list of them; `input_data` is what the target gets.
        `context` has records by (dotted) step id, `nested_steps_context` those of nested workflows, by
        workflow and step id. Values of `request_context` come over those that the run has.

        Raises StillRunningError, StepNotFoundError, TimeTravelError and ValidationError (nothing is changed).
        """
        asked = Travel(
            input_data=input_data,
            resume_data=resume_data,
            context=context or {},
            nested_context=nested_steps_context or {},
            initial_state=initial_state,
            per_step=per_step,
        )
        await (await self._travel(step, asked, request_context))
        return await self._result()

    def time_travel_stream(
        self,
        step: Any,
        input_data: Any = None,
        resume_data: Any = None,
        context: Records | None = None,
        initial_state: Any = None,
        *,
        nested_steps_context: Mapping[str, Records] | None = None,
        request_context: RequestContext | Mapping[str, Any] | None = None,
        per_step: bool = False,
    ) -> RunStream[Out]:
        """As `time_travel`, as an async iterable of this leg's events."""

        asked = Travel(
            input_data=input_data,
            resume_data=resume_data,
            context=context or {},
            nested_context=nested_steps_context or {},
            initial_state=initial_state,
            per_step=per_step,
        )

        async def begin() -> None:
            await self._travel(step, asked, request_context)

        return RunStream(self, begin, close_on_suspend=True)

    async def cancel(self) -> None:
        """End the run as canceled; the step in flight sees `abort_signal`, and no other begins.

        A run that has ended stays as it is. Raises RunNotFoundError.
        """
        await self._stored()
        event = run_canceled(self.run_id)
        if not await self._storage.cancel(
            self.workflow_id, self.run_id, event=event, now=self.app.clock.now()
        ):
            return
        await notify_ended(self.workflow, "canceled", partial(self._info, (await self._stored()).snapshot))
        self.app.feed.wake(self.workflow_id, self.run_id, at_rest=True)
        if self.app.engine_for(self.workflow) == "local":
            self.app.local_runner.abort(self.workflow_id, self.run_id)
        else:
            await self.app.inngest_runner.cancel(self.workflow, self.run_id)

    def _info(self, snapshot: Snapshot) -> RunInfo:
        return info_of(self.workflow, snapshot, resource_id=self.resource_id, app=self.app)

    def observe_stream(self) -> RunStream[Out]:
        """All events of the run so far, then new ones, until it ends."""
        return RunStream(self, None, close_on_suspend=False)

    def watch(self, callback: Callable[[WorkflowEvent], Any]) -> Callable[[], None]:
        """Call back, or await, with every event of the run, those of the past first; the answer stops it.

        Unlike a stream it also tells `workflow-step-finish`, after each `workflow-step-result`. Needs a
        running event loop.
        """
        task = asyncio.create_task(self._watch(callback))
        return lambda: None if task.done() else task.get_loop().call_soon_threadsafe(task.cancel) and None

    async def _watch(self, callback: Callable[[WorkflowEvent], Any]) -> None:
        followed = self.app.feed.follow(await self.app.opened(), self.workflow_id, self.run_id)
        with contextlib.suppress(RunNotFoundError):  # deleted: there will be no more events
            async for _, event in followed:
                value = callback(event)
                if isinstance(value, Awaitable):
                    await value

    async def _begin(
        self, input_data: Any, initial_state: Any, request_context: Any, *, per_step: bool
    ) -> Awaitable[Any]:
        stored, self._pending = self._pending or await self._stored(), None
        if stored.status not in NEVER_STARTED:
            raise started_before(self.run_id, stored.status)
        state = self._valid(self.workflow.schemas.state, initial_state or {}, "Invalid initial state")
        check_state_size(state)
        begun = replace(
            stored.snapshot,
            status="running",
            input=self._valid(self.workflow.schemas.input, input_data, "Invalid input data"),
            state=state,
            request_context=self._valid_context(request_context),
        )
        await notify_started(self.workflow, partial(self._info, begun))
        return await launch(self, plan_start(begun, per_step=per_step), expected=NEVER_STARTED)

    async def _resume(
        self,
        step: Any,
        resume_data: Any,
        label: str | None,
        item: int | None,
        request_context: Any,
        *,
        per_step: bool,
    ) -> Awaitable[Any]:
        seen = await self._stored()
        rest = await self._at_rest(seen)
        stored = await self._whole(rest)
        snapshot = replace(self._with_context(stored.snapshot, request_context), status="running")
        if stored.status == "paused" and step is None and label is None:
            return await launch(self, Leg("resume", snapshot, per_step=per_step), expected=_PAUSED)
        target = plan_resume(self.workflow, stored.snapshot, step=_path(step), label=label, item=item)
        if seen is not rest and not same_suspension(target, seen.snapshot, rest.snapshot):
            raise AlreadyClaimedError(f"Run {self.run_id!r} was resumed meanwhile: another call was first.")
        data = to_json(resume_data)
        asked = self.workflow.step_named(target.paths[0])
        if isinstance(asked, Step):
            data = self._valid(asked.schemas.resume, data, "Invalid resume data")
        leg = Leg(
            "resume",
            snapshot,
            targets=target.paths,
            item=target.item,
            resume_data=data,
            per_step=per_step,
        )
        return await launch(self, leg, expected=_SUSPENDED, records=_added(stored, rest))

    async def _at_rest(self, stored: StoredRun) -> StoredRun:
        """The run once its leg has ended: a suspension is seen as an event before that."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while stored.status in ACTIVE and leaf_paths(stored.snapshot.records) and time.monotonic() < deadline:
            await asyncio.sleep(SETTLE_POLL_SECONDS)
            stored = await self._stored()
        return stored

    async def _travel(self, step: Any, asked: Travel, request_context: Any) -> Awaitable[Any]:
        stored = await self._stored()
        if stored.status in ACTIVE:
            raise StillRunningError("This workflow run is still running, cannot time travel.")
        named = _path(step)
        path = (
            named.split(".") if isinstance(named, str) else [id for n in named or () for id in n.split(".")]
        )
        if not path:
            raise StepNotFoundError("Step is required and must be a valid step or array of steps.")
        data = to_json(asked.input_data)
        target = self.workflow.steps.get(path[0])
        if len(path) == 1 and target is not None and data is not None:
            data = self._valid(target.schemas.input, data, "Invalid input data")
        travel = replace(
            asked,
            path=path,
            now=self.app.clock.now(),
            input_data=data,
            resume_data=to_json(asked.resume_data),
            initial_state=to_json(asked.initial_state),
        )
        leg = plan_time_travel(self.workflow, self._with_context(stored.snapshot, request_context), travel)
        return await launch(self, leg, expected=_AT_REST, records=leg.snapshot.records)

    def _valid(self, schema: Any, data: Any, what: str) -> Any:
        plain = to_json(data)
        return to_json(parse(schema, plain, what=what)) if self.workflow.options.validate_inputs else plain

    def _with_context(self, snapshot: Snapshot, given: RequestContext | Mapping[str, Any] | None) -> Snapshot:
        """The snapshot with these values over those that it has; raises ValidationError."""
        context = snapshot.request_context | RequestContext(given).to_json()
        return replace(snapshot, request_context=self._valid_context(context))

    def _valid_context(self, context: RequestContext | Mapping[str, Any] | None) -> dict[str, Any]:
        values = RequestContext(context).to_json()
        self._valid(self.workflow.schemas.request_context, values, "Invalid request context")
        return values

    @property
    def _storage(self) -> Storage:
        return self.app.storage

    async def _stored(self) -> StoredRun:
        stored = await self._storage.get_run(self.workflow_id, self.run_id)
        if stored is None:
            raise RunNotFoundError(self.workflow_id, self.run_id)
        return stored

    async def _whole(self, stored: StoredRun) -> StoredRun:
        """The run with the records of nested workflows that were stored as rows of their own."""
        return replace(stored, snapshot=await with_nested_rows(self._storage, self.workflow, stored.snapshot))

    async def _result(self) -> RunResult[Out]:
        return result_of(self.workflow, await self._stored())


async def create_run(
    workflow: Workflow[Any, Out], *, run_id: str | None, resource_id: str | None, app: App | None = None
) -> Run[Out]:
    """A run that is stored as pending, or the stored one with that id; in the workflow's app unless given."""
    app = app or workflow.app or default_app()
    storage = await app.opened()
    id = run_id or str(uuid.uuid4())
    snapshot = Snapshot(id, serialized_step_graph=workflow.serialized_step_graph, timestamp=app.clock.now())
    stored = await storage.create_run(
        workflow.id,
        id,
        resource_id=resource_id,
        snapshot=snapshot,
        now=app.clock.now(),
        is_shown=is_persisted(workflow, "pending", {}, app.logger),
    )
    pending = stored if stored.status in NEVER_STARTED else None
    return Run(workflow, app, id, stored.resource_id, pending=pending)


def _added(whole: StoredRun, stored: StoredRun) -> dict[str, StepResult] | None:
    """All records, when there are more than those that are stored with the run."""
    records = whole.snapshot.records
    return records if len(records) > len(stored.snapshot.records) else None


def _path(step: Any) -> str | Sequence[str] | None:
    if isinstance(step, list | tuple):
        return [s if isinstance(s, str) else s.id for s in step]
    return step if step is None or isinstance(step, str) else step.id
