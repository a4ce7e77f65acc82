"""`flowctl invoke`: run a workflow, show its steps, print its result."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from flowctl.errors import ConfigurationError
from flowctl_cli.client import Client, RefusedError
from flowctl_cli.console import result, say
from flowctl_cli.dev_lock import dev_url
from flowctl_cli.options import AppName, Dir, EnvFile, Json, Url
from flowctl_cli.progress import Progress
from flowctl_cli.project import find_project, load_app, load_environment

EXIT_CODES = {"success": 0, "failed": 1, "canceled": 1, "suspended": 5, "paused": 5}


def command(
    workflow: Annotated[str | None, typer.Argument(help="Not needed when the app has one workflow.")] = None,
    data: Annotated[str, typer.Option("--data", "-d", help="JSON, @file or - for stdin.")] = "null",
    url: Url = None,
    local: Annotated[bool, typer.Option("--local", help="Run in this process, without a server.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Print the run's id and leave.")] = False,
    as_json: Json = False,
    directory: Dir = None,
    app: AppName = None,
    env_file: EnvFile = None,
) -> int:
    """Run a workflow and show its steps as they happen; the result is printed as JSON.

    Exit codes: 0 success, 1 failed or canceled, 2 wrong usage or input, 4 no server, 5 suspended.

    Examples:

      flowctl invoke --data '{"value": 5}'

      flowctl invoke increment-workflow --data @input.json --local
    """
    given = parsed(data)
    if isinstance(given, dict) and set(given) == {"data"} and "inputData" in (given["data"] or {}):
        inner = json.dumps(given["data"]["inputData"])
        raise ConfigurationError(f"--data is the workflow's input itself: --data '{inner}'")
    project = find_project(directory)
    if local:
        load_environment(project, env_file)
        loaded = load_app(project, app)
        loaded.app.engine = "local"
        return asyncio.run(_run_local(loaded.app, workflow, given, as_json=as_json))
    return asyncio.run(_run_remote(url or dev_url(project), workflow, given, detach=detach, as_json=as_json))


async def _run_remote(url: str, name: str | None, given: Any, *, detach: bool, as_json: bool) -> int:
    client = Client(url)
    try:
        id = _chosen(list(await client.call("GET", "/workflows")), name)
        path = f"/workflows/{id}"
        run_id = str((await client.call("POST", f"{path}/create-run", {}))["runId"])
        if detach:
            await client.call("POST", f"{path}/start", {"inputData": given}, runId=run_id)
            result({"runId": run_id})
            return 0
        progress = Progress()
        async for event in client.events(f"{path}/stream", {"inputData": given}, runId=run_id):
            progress.show(event)
        progress.end(id, run_id)
        run = await client.call("GET", f"{path}/runs/{run_id}")
        return _report(run, as_json=as_json)
    finally:
        await client.close()


async def _run_local(app: Any, name: str | None, given: Any, *, as_json: bool) -> int:
    from flowctl.server.wire import run_json  # noqa: PLC0415 - only local runs need it

    id = _chosen(list(app.workflows), name)
    try:
        run = await app.get_workflow(id).create_run()
        progress, stream = Progress(), run.stream(given)
        async for event in stream:
            progress.show(event.to_json())
        progress.end(id, run.run_id)
        stored = await app.get_workflow(id).get_workflow_run_by_id(run.run_id)
        return _report(run_json(stored), as_json=as_json)
    finally:
        await app.stop()


def _report(run: dict[str, Any], *, as_json: bool) -> int:
    status = str(run["status"])
    if as_json:
        result(run)
    elif status == "success":
        result(run.get("result"))
    elif status == "failed":
        error = run.get("error") or {}
        say(f"{error.get('stack') or ''}{error.get('name', 'Error')}: {error.get('message', '')}")
    elif status == "suspended":
        waiting = ", ".join(run.get("suspendedPaths") or {})
        say(f"Suspended at {waiting}. Go on with POST /api/workflows/…/resume?runId={run['runId']}.")
    return EXIT_CODES.get(status, 1)


def _chosen(known: list[str], name: str | None) -> str:
    listed = ", ".join(known) or "none"
    if name is None:
        if len(known) == 1:
            return known[0]
        raise ConfigurationError(f"Which workflow? There are: {listed}.")
    if name not in known:
        raise RefusedError(f"There is no workflow {name!r}. There are: {listed}.")
    return name


def parsed(data: str) -> Any:
    """What an option says: JSON itself, `@file`, or `-` for stdin."""
    try:
        if data == "-":
            data = sys.stdin.read()
        elif data.startswith("@"):
            data = Path(data[1:]).read_text()
        return json.loads(data)
    except json.JSONDecodeError as err:
        raise ConfigurationError(f"--data is no valid JSON: {err}.") from err
    except OSError as err:
        raise ConfigurationError(f"--data: cannot read {data[1:]!r}: {err.strerror}.") from err
