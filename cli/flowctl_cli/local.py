"""Workflows in this process: the project's app, with its own storage and the local engine."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from flowctl.errors import RunNotFoundError
from flowctl.server import models, wire
from flowctl.stored import in_detail
from flowctl_cli.backend import RunRef, Stream, Where
from flowctl_cli.console import typed, users_prints_aside
from flowctl_cli.known import remember
from flowctl_cli.project import find_project, load_app, load_environment
from flowctl_cli.tracebacks import show_logs

if TYPE_CHECKING:
    from flowctl import App
    from flowctl.run import Run
    from flowctl.stream import RunStream


@contextlib.asynccontextmanager
async def opened(where: Where) -> AsyncGenerator[Local]:
    """The project's app, started; stopped at the end, with some seconds for what runs."""
    project = find_project(where.directory)
    load_environment(project, where.env_file)
    with users_prints_aside():
        app = load_app(project, where.app).app
        show_logs()
        app.engine = "local"
        await app.opened()
        local = Local(app)
        try:
            remember(project.state, await local.workflows())
            yield local
        finally:
            await app.stop()


@dataclass(frozen=True, slots=True)
class Local:
    """A backend without a server."""

    app: App
    name: str = "this process"
    option: str = " --local"

    def interrupted(self, run: RunRef) -> str:
        """What becomes of a run that is followed no more, and how to go on with it."""
        return f"Interrupted. It goes on with:\n  flowctl restart {typed(run.run_id)}{self.option}"

    async def workflows(self) -> dict[str, Any]:
        """All workflows, by id."""
        return {id: wire.workflow_json(workflow) for id, workflow in self.app.workflows.items()}

    async def functions(self) -> list[dict[str, Any]]:
        """The app's own functions: workflows need none here."""
        return [{"id": function.local_id, "name": function.name} for function in self.app.functions]

    async def engine(self) -> str | None:
        """No engine: workflows run in this process."""
        return None

    async def create_run(self, workflow_id: str, *, resource_id: str | None = None) -> RunRef:
        """A stored run that is not started yet."""
        run = await self.app.get_workflow(workflow_id).create_run(resource_id=resource_id)
        return RunRef(workflow_id, run.run_id)

    async def begin(self, run: RunRef, body: Mapping[str, Any]) -> None:
        """Start a run; it ends with this process."""
        given = models.StartRun.model_validate(body)
        await (await self._handle(run)).start_async(
            given.input_data, given.initial_state, given.request_context
        )

    async def start(self, run: RunRef, body: Mapping[str, Any]) -> Stream:
        """Start a run; its events."""
        given = models.StartRun.model_validate(body)
        stream = (await self._handle(run)).stream(
            given.input_data, given.initial_state, given.request_context, per_step=given.per_step
        )
        async for event in _events(stream):
            yield event

    async def resume(self, run: RunRef, body: Mapping[str, Any]) -> Stream:
        """Go on with a suspended run; the events from here on."""
        async for event in _events(
            (await self._handle(run)).resume_stream(**_fields(models.ResumeRun, body))
        ):
            yield event

    async def time_travel(self, run: RunRef, body: Mapping[str, Any]) -> Stream:
        """Run again from a step on; the events from here on."""
        async for event in _events(
            (await self._handle(run)).time_travel_stream(**_fields(models.TimeTravel, body))
        ):
            yield event

    async def observe(self, run: RunRef) -> Stream:
        """All events so far, then new ones until the run has ended."""
        async for event in _events((await self._handle(run)).observe_stream()):
            yield event

    async def restart(self, run: RunRef) -> None:
        """Go on with a run whose process is gone, and wait until it stops."""
        await (await self._handle(run)).restart()

    async def cancel(self, run: RunRef) -> None:
        """End a run as canceled."""
        await (await self._handle(run)).cancel()

    async def run(self, run: RunRef) -> dict[str, Any] | None:
        """A run in detail; None if nothing is stored for it."""
        workflow = self.app.get_workflow(run.workflow_id)
        stored = await in_detail(await self.app.opened(), workflow.id, run.run_id)
        return None if stored is None else wire.run_json(stored)

    async def runs(self, workflow_id: str, query: Mapping[str, str]) -> dict[str, Any]:
        """A page of runs, newest first, and how many there are."""
        page = await self.app.get_workflow(workflow_id).list_workflow_runs(**_filters(query))
        return {"runs": [run.to_json() for run in page.runs], "total": page.total}

    async def delete(self, run: RunRef) -> None:
        """Forget a run."""
        if not await self.app.get_workflow(run.workflow_id).delete_workflow_run_by_id(run.run_id):
            raise RunNotFoundError(run.workflow_id, run.run_id)

    async def _handle(self, run: RunRef) -> Run[Any]:
        return await self.app.get_workflow(run.workflow_id).create_run(run_id=run.run_id)


async def _events(stream: RunStream[Any]) -> Stream:
    async for event in stream:
        yield event.to_json()


def _fields(model: type[models.Body], body: Mapping[str, Any]) -> dict[str, Any]:
    given = model.model_validate(body)
    return {name: getattr(given, name) for name in model.model_fields}


def _filters(query: Mapping[str, str]) -> dict[str, Any]:
    names = {"status": "status", "resourceId": "resource_id"}
    filters: dict[str, Any] = {names[key]: value for key, value in query.items() if key in names}
    numbers = {"page": "page", "perPage": "per_page"}
    filters |= {numbers[key]: int(value) for key, value in query.items() if key in numbers}
    dates = {"fromDate": "from_date", "toDate": "to_date"}
    return filters | {dates[k]: datetime.fromisoformat(v) for k, v in query.items() if k in dates}
