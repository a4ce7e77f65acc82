"""Workflows on a server, over its REST API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from flowctl_cli.backend import RunRef, Stream
from flowctl_cli.client import Client, RefusedError
from flowctl_cli.dev_lock import DEFAULT_URL, dev_url
from flowctl_cli.project import Project

PROBE_SECONDS = 2.0


async def reachable(project: Project) -> str | None:
    """The server that serves the project here: its dev server, else what answers at the default address."""
    async with httpx.AsyncClient(timeout=PROBE_SECONDS) as http:
        for url in dict.fromkeys([dev_url(project), DEFAULT_URL]):
            try:
                if (await http.get(f"{url}/health")).is_success:
                    return url
            except httpx.TransportError:
                continue
    return None


class Remote:
    """A backend behind a URL."""

    def __init__(self, url: str) -> None:
        self.name = url
        self._client = Client(url)

    async def aclose(self) -> None:
        """Drop the connections."""
        await self._client.close()

    def interrupted(self, run: RunRef) -> str:
        """What becomes of a run that is followed no more, and how to go on with it."""
        id = run.run_id
        return f"The run goes on. Watch it: flowctl runs watch {id}; end it: flowctl cancel {id}"

    async def workflows(self) -> dict[str, Any]:
        """All workflows, by id."""
        return await self._client.call("GET", "/workflows")

    async def functions(self) -> list[dict[str, Any]]:
        """All Inngest functions, workflows' included."""
        return await self._client.call("GET", "/functions")

    async def create_run(self, workflow_id: str, *, resource_id: str | None = None) -> RunRef:
        """A stored run that is not started yet."""
        made = await self._client.call(
            "POST", f"/workflows/{workflow_id}/create-run", {"resourceId": resource_id}
        )
        return RunRef(workflow_id, str(made["runId"]))

    async def begin(self, run: RunRef, body: Mapping[str, Any]) -> None:
        """Start a run; do not wait for it."""
        await self._client.call("POST", f"/workflows/{run.workflow_id}/start", body, runId=run.run_id)

    def start(self, run: RunRef, body: Mapping[str, Any]) -> Stream:
        """Start a run; its events."""
        return self._stream(run, "stream", body)

    def resume(self, run: RunRef, body: Mapping[str, Any]) -> Stream:
        """Go on with a suspended run; the events from here on."""
        return self._stream(run, "resume-stream", body)

    def time_travel(self, run: RunRef, body: Mapping[str, Any]) -> Stream:
        """Run again from a step on; the events from here on."""
        return self._stream(run, "time-travel-stream", body)

    def observe(self, run: RunRef) -> Stream:
        """All events so far, then new ones until the run has ended."""
        return self._stream(run, "observe", {})

    async def restart(self, run: RunRef) -> None:
        """Go on with a run whose process is gone, and wait until it stops."""
        await self._client.call("POST", f"/workflows/{run.workflow_id}/restart-async", {}, runId=run.run_id)

    async def cancel(self, run: RunRef) -> None:
        """End a run as canceled."""
        await self._client.call("POST", f"{_path(run)}/cancel", {})

    async def run(self, run: RunRef) -> dict[str, Any] | None:
        """A run in detail; None if nothing is stored for it."""
        try:
            return await self._client.call("GET", _path(run))
        except RefusedError as err:
            if err.status == 404:
                return None
            raise

    async def runs(self, workflow_id: str, query: Mapping[str, str]) -> dict[str, Any]:
        """A page of runs, newest first, and how many there are."""
        return await self._client.call("GET", f"/workflows/{workflow_id}/runs", **query)

    async def delete(self, run: RunRef) -> None:
        """Forget a run."""
        await self._client.call("DELETE", _path(run))

    def _stream(self, run: RunRef, verb: str, body: Mapping[str, Any]) -> Stream:
        return self._client.events(f"/workflows/{run.workflow_id}/{verb}", body, runId=run.run_id)


def _path(run: RunRef) -> str:
    return f"/workflows/{run.workflow_id}/runs/{run.run_id}"
