"""Workflows on a server, over its REST API."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx

from flowctl.client import Client
from flowctl.errors import NotFoundError
from flowctl.events import WorkflowEvent
from flowctl_cli.backend import RunRef, Stream
from flowctl_cli.dev_lock import DEFAULT_URL, dev_url
from flowctl_cli.project import Project

PROBE_SECONDS = 2.0
API_KEY = "FLOWCTL_API_KEY"


async def reachable(project: Project) -> str | None:
    """The server that serves the project here: its dev server, else what answers at the default address."""
    async with httpx.AsyncClient(timeout=PROBE_SECONDS, trust_env=False) as http:
        for url in dict.fromkeys([dev_url(project), DEFAULT_URL]):
            try:
                if (await http.get(f"{url}/health")).is_success:
                    return url
            except httpx.TransportError:
                continue
    return None


class Remote:
    """A backend behind a URL."""

    def __init__(self, url: str, *, option: str) -> None:
        self.name, self.option = url, option
        self._client = Client(url, api_key=os.environ.get(API_KEY))

    async def aclose(self) -> None:
        """Drop the connections."""
        await self._client.close()

    def interrupted(self, run: RunRef) -> str:
        """What becomes of a run that is followed no more, and how to go on with it."""
        id = f"{run.run_id}{self.option}"
        return f"The run goes on. Watch it: flowctl runs watch {id}; end it: flowctl cancel {id}"

    async def workflows(self) -> dict[str, Any]:
        """All workflows, by id."""
        return await self._client.call("GET", "/workflows")

    async def functions(self) -> list[dict[str, Any]]:
        """All Inngest functions, workflows' included."""
        return await self._client.call("GET", "/functions")

    async def create_run(self, workflow_id: str, *, resource_id: str | None = None) -> RunRef:
        """A stored run that is not started yet."""
        return RunRef(workflow_id, await self._client.create_run(workflow_id, resource_id=resource_id))

    async def begin(self, run: RunRef, body: Mapping[str, Any]) -> None:
        """Start a run; do not wait for it."""
        await self._client.start_async(
            run.workflow_id,
            body.get("inputData"),
            run_id=run.run_id,
            initial_state=body.get("initialState"),
            request_context=body.get("requestContext"),
            per_step=bool(body.get("perStep")),
        )

    def start(self, run: RunRef, body: Mapping[str, Any]) -> Stream:
        """Start a run; its events."""
        return _events(
            self._client.stream(
                run.workflow_id,
                body.get("inputData"),
                run_id=run.run_id,
                initial_state=body.get("initialState"),
                request_context=body.get("requestContext"),
                per_step=bool(body.get("perStep")),
            )
        )

    def resume(self, run: RunRef, body: Mapping[str, Any]) -> Stream:
        """Go on with a suspended run; the events from here on."""
        return _events(
            self._client.resume_stream(
                run.workflow_id,
                run.run_id,
                step=body.get("step"),
                resume_data=body.get("resumeData"),
                label=body.get("label"),
                for_each_index=body.get("forEachIndex"),
                request_context=body.get("requestContext"),
            )
        )

    def time_travel(self, run: RunRef, body: Mapping[str, Any]) -> Stream:
        """Run again from a step on; the events from here on."""
        return _events(
            self._client.time_travel_stream(
                run.workflow_id,
                run.run_id,
                body["step"],
                input_data=body.get("inputData"),
                resume_data=body.get("resumeData"),
                context=body.get("context"),
                initial_state=body.get("initialState"),
                per_step=bool(body.get("perStep")),
            )
        )

    def observe(self, run: RunRef) -> Stream:
        """All events so far, then new ones until the run has ended."""
        return _events(self._client.observe(run.workflow_id, run.run_id))

    async def restart(self, run: RunRef) -> None:
        """Go on with a run whose process is gone, and wait until it stops."""
        await self._client.restart(run.workflow_id, run.run_id)

    async def cancel(self, run: RunRef) -> None:
        """End a run as canceled."""
        await self._client.cancel(run.workflow_id, run.run_id)

    async def run(self, run: RunRef) -> dict[str, Any] | None:
        """A run in detail; None if nothing is stored for it."""
        try:
            return await self._client.call("GET", f"/workflows/{run.workflow_id}/runs/{run.run_id}")
        except NotFoundError:
            return None

    async def runs(self, workflow_id: str, query: Mapping[str, str]) -> dict[str, Any]:
        """A page of runs, newest first, and how many there are."""
        return await self._client.call("GET", f"/workflows/{workflow_id}/runs", **query)

    async def delete(self, run: RunRef) -> None:
        """Forget a run."""
        await self._client.delete_run(run.workflow_id, run.run_id)


async def _events(events: AsyncIterator[WorkflowEvent]) -> Stream:
    async for event in events:
        yield event.to_json()
