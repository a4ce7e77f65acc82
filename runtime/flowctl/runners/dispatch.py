"""Hands claimed legs to Inngest and tells it about cancellations: the sending side of `runners.inngest`.

An event is stored with its leg's claim and sent with an id of its own, so that a leg whose sender died is
sent again, and one that was sent twice begins once.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import inngest
import orjson
from inngest._internal.errors import FunctionConfigInvalidError

from flowctl.errors import DefinitionError, EngineError, StorageError
from flowctl.events import run_canceled
from flowctl.runners.engine_api import EngineApi
from flowctl.runners.functions import checkpointed
from flowctl.runners.inngest import BoundWorkflow
from flowctl.snapshot import ACTIVE
from flowctl.storage.base import Dispatch

if TYPE_CHECKING:
    from flowctl.app import App
    from flowctl.workflow import Workflow

TRIES = 2
LONGEST_PAUSE_SECONDS = 30.0
PAUSE_SECONDS = 0.25
ANSWER_SECONDS = 10.0
FIRST_LOOK_SECONDS, LONGEST_LOOK_SECONDS = 5.0, 60.0
_UNDER_WAY = frozenset({"Running", "Scheduled"})
_ENGINE_RUN_ID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


@dataclass(slots=True)
class InngestRunner:
    """The app's workflows that run on Inngest."""

    app: App
    _bound: dict[str, BoundWorkflow] = field(default_factory=dict[str, BoundWorkflow])
    _apis: dict[int, EngineApi] = field(default_factory=dict[int, EngineApi])

    def bound(self, workflow: Workflow[Any, Any]) -> BoundWorkflow:
        """A workflow with its client; raises EngineError when there is none."""
        client = workflow.client or self.app.inngest
        if client is None:
            raise EngineError(
                f"Workflow {workflow.id!r} is to run on Inngest, but there is no client: "
                "pass inngest= to App or make the workflow with init(client)."
            )
        if workflow.id not in self._bound:
            self._bound[workflow.id] = BoundWorkflow(self.app, workflow, client, self._api(client))
        return self._bound[workflow.id]

    def _api(self, client: inngest.Inngest) -> EngineApi:
        return self._apis.setdefault(id(client), EngineApi(client))

    def checkpointed(self, function: inngest.Function[Any], client: inngest.Inngest) -> inngest.Function[Any]:
        """A function of the user's, whose steps are reported as they end."""
        return checkpointed(function, self._api(client), seconds=self.app.leg_limits.seconds)

    def functions(self) -> list[inngest.Function[Any]]:
        """The functions of all workflows that run on Inngest; raises DefinitionError for wrong options."""
        chosen = [w for w in self.app.workflows.values() if self.app.engine_for(w) == "inngest"]
        return [function for workflow in chosen for function in self._functions_of(workflow)]

    def _functions_of(self, workflow: Workflow[Any, Any]) -> list[inngest.Function[Any]]:
        try:
            return self.bound(workflow).functions()
        except FunctionConfigInvalidError as err:
            raise DefinitionError(f"Workflow {workflow.id!r} cannot be a function of Inngest: {err}") from err

    async def deliver(self, dispatch: Dispatch) -> None:
        """Send a leg's event; raises EngineError when Inngest cannot be reached (it stays stored then)."""
        bound = self.bound(self.app.get_workflow(dispatch.workflow_id))
        first = dispatch.body["kind"] == "start"
        event = inngest.Event(
            name=bound.name if first else f"{bound.name}.continue",
            id=f"{dispatch.workflow_id}:{dispatch.run_id}:{dispatch.leg}",
            data={**dispatch.body, "leg": dispatch.leg},
        )
        await _send(bound.api, event)
        await self.app.storage.delivered(dispatch)

    async def deliver_stored(self) -> None:
        """Send what an earlier process had no time, or no engine, to send; goes on until all is sent."""
        pause = PAUSE_SECONDS
        while waiting := [d for d in await self.app.storage.undelivered() if self._is_ours(d)]:
            try:
                for dispatch in waiting:
                    await self.deliver(dispatch)
            except EngineError as err:
                self.app.logger.warning("%d runs wait to be sent: %s", len(waiting), err)
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    def start(self) -> asyncio.Task[None]:
        """Send what waits to be sent, in a task."""
        for api in self._apis.values():
            api.is_open = True
        return asyncio.create_task(self.deliver_stored())

    async def stop(self, *, grace: float) -> None:
        """Give requests under way this many seconds, then close the connections of this event loop."""
        loop = asyncio.get_running_loop()
        requests = [task for api in self._apis.values() for task in tuple(api.requests)]
        if ours := [task for task in requests if task.get_loop() is loop]:
            await asyncio.wait(ours, timeout=grace)
        for api in self._apis.values():
            await api.close()

    def _is_ours(self, dispatch: Dispatch) -> bool:
        workflow = self.app.workflows.get(dispatch.workflow_id)
        return workflow is not None and self.app.engine_for(workflow) == "inngest"

    async def is_under_way(self, workflow: Workflow[Any, Any], engine_run_id: str) -> bool:
        """Whether Inngest executes this function run, or will; raises EngineError when it does not say."""
        return await self._status(workflow, engine_run_id) in _UNDER_WAY

    async def has_ended(self, workflow: Workflow[Any, Any], run_id: str) -> None:
        """Return once Inngest has ended an active run by itself: for its timeouts, or somebody's wish.

        It tells nobody of that, so it is asked now and then.
        """
        pause = FIRST_LOOK_SECONDS
        while True:
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_LOOK_SECONDS)
            with contextlib.suppress(EngineError, StorageError):
                begun = await self._engine_run(workflow, run_id)
                if begun is None or await self._status(workflow, begun) != "Cancelled":
                    continue
                if begun == await self._engine_run(workflow, run_id):  # no other leg has begun meanwhile
                    return

    async def _engine_run(self, workflow: Workflow[Any, Any], run_id: str) -> str | None:
        stored = await self.app.storage.get_run(workflow.id, run_id)
        return stored.snapshot.engine_run_id if stored is not None and stored.status in ACTIVE else None

    async def _status(self, workflow: Workflow[Any, Any], engine_run_id: str) -> str | None:
        api = self.bound(workflow).api
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await api.call("GET", f"/v1/runs/{engine_run_id}")
        except TimeoutError:
            raise EngineError(f"Inngest at {api.client.api_origin} did not answer in time.") from None
        if answer.status in {401, 403}:
            raise EngineError(
                f"Inngest at {api.client.api_origin} does not tell about runs: {answer.status}."
            )
        known: Mapping[str, Any] = (orjson.loads(answer.body) if answer.status == 200 else {}).get(
            "data"
        ) or {}
        return known.get("status")

    async def cancel(self, workflow: Workflow[Any, Any], run_id: str) -> None:
        """Tell the steps in flight here, those who watch, and the engine that a run was canceled."""
        bound = self.bound(workflow)
        bound.abort(run_id)
        publisher = bound.publisher(run_id)
        publisher.put(run_canceled(run_id))
        try:
            for event in _cancellations(workflow, run_id):
                await _send(bound.api, event)
            if _ENGINE_RUN_ID.fullmatch(run_id):
                await _delete_run(bound.api, run_id)
        except EngineError as err:
            # Storage has the cancellation already: the run's next operation sees it.
            self.app.logger.warning("Run %r is canceled, but the engine could not be told: %s", run_id, err)
        await publisher.flushed()


def _cancellations(workflow: Workflow[Any, Any], run_id: str) -> Iterator[inngest.Event]:
    """What ends the functions of a run: its own, and those of nested workflows that are functions too."""
    yield inngest.Event(name=f"cancel.workflow.{workflow.id}", data={"runId": run_id})
    part = {"name": f"{workflow.id}/{run_id}"}
    for id in sorted({nested.id for nested in _nested(workflow) if nested.runs_apart}):
        yield inngest.Event(name=f"cancel.workflow.{id}.part", data={"part": part})


def _nested(workflow: Workflow[Any, Any]) -> Iterator[Workflow[Any, Any]]:
    for nested in workflow.nested:
        yield nested
        yield from _nested(nested)


async def _send(api: EngineApi, event: inngest.Event) -> None:
    failure: Exception | None = None
    for attempt in range(TRIES):
        if attempt:
            await asyncio.sleep(PAUSE_SECONDS * 2**attempt)
        try:
            await api.send(event)
        except Exception as err:  # noqa: BLE001 - the client raises several kinds; all mean "not sent"
            failure = err
        else:
            return
    raise EngineError(
        f"Inngest did not take the event {event.name!r} at {api.client.event_api_origin}: {failure}. "
        "Is the engine running? `flowctl dev` starts one."
    )


async def _delete_run(api: EngineApi, run_id: str) -> None:
    answer = await api.call("DELETE", f"/v1/runs/{run_id}")
    if answer.status >= 400 and answer.status != 404:
        raise EngineError(f"Inngest at {api.client.api_origin} answered {answer.status} to the cancellation.")
