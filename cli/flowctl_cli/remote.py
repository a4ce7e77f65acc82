"""Workflows on a server, over its REST API."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx

from flowctl.client import Client
from flowctl.errors import FlowctlError, NotFoundError
from flowctl.events import WorkflowEvent
from flowctl_cli.backend import RunRef, Stream, is_here
from flowctl_cli.console import say, style, typed
from flowctl_cli.dev_lock import running
from flowctl_cli.project import Project

PROBE_SECONDS = 2.0
DEFAULT_PORT = 4111
DEV_STATUS = "/api/dev"
API_KEY = "FLOWCTL_API_KEY"


async def server_of(project: Project) -> str | None:
    """The project's dev server, else a server at the usual address, which is said; None without any.

    Another project's dev server there is not used, which is said too.
    """
    if own := running(project).get("url"):
        return str(own)
    url = f"http://127.0.0.1:{project.settings.get('port', DEFAULT_PORT)}"
    async with httpx.AsyncClient(base_url=url, timeout=PROBE_SECONDS, trust_env=False) as http:
        if await _asked(http, "/health") != {"success": True}:
            return None
        if await _asked(http, DEV_STATUS) is not None:
            say(style(f"{url} is another project's dev server: not used (--url {url} would)", "dim"))
            return None
    say(style(f"talking to {url}: no dev server of this project runs", "dim"))
    return url


async def _asked(http: httpx.AsyncClient, path: str) -> Any:
    """What a server answers as JSON; None for anything else."""
    try:
        answer = await http.get(path)
        return answer.json() if answer.is_success else None
    except (httpx.HTTPError, ValueError):
        return None


class Remote:
    """A backend behind a URL."""

    def __init__(self, url: str, *, option: str) -> None:
        self.name, self.option = url, option
        direct = httpx.AsyncHTTPTransport() if is_here(url) else None
        self._client = Client(url, api_key=os.environ.get(API_KEY), transport=direct)

    async def aclose(self) -> None:
        """Drop the connections."""
        await self._client.close()

    def interrupted(self, run: RunRef) -> str:
        """What becomes of a run that is followed no more, and how to go on with it."""
        id = f"{typed(run.run_id)}{self.option}"
        return f"The run goes on. Watch it or end it:\n  flowctl runs watch {id}\n  flowctl cancel {id}"

    async def workflows(self) -> dict[str, Any]:
        """All workflows, by id."""
        return await self._client.call("GET", "/workflows")

    async def functions(self) -> list[dict[str, Any]]:
        """All Inngest functions, workflows' included."""
        return await self._client.call("GET", "/functions")

    async def engine(self) -> str | None:
        """The engine that a dev server uses."""
        try:
            return (await self._client.call("GET", "/dev"))["engine"]["url"]
        except (FlowctlError, KeyError, TypeError):
            return None

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
