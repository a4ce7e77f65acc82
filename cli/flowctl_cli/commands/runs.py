"""`flowctl runs`: list, show, watch and delete runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

import typer

from flowctl.errors import ConfigurationError
from flowctl_cli.backend import Backend, RunRef, Stream, Where, chosen, connected, find_run
from flowctl_cli.console import brief, is_interactive, result, say, style, table, typed
from flowctl_cli.follow import EXIT_CODES, follow, report, stored
from flowctl_cli.forms import confirm
from flowctl_cli.options import AppName, Dir, EnvFile, Json, Local, RunId, Url, parser
from flowctl_cli.progress import print_tree
from flowctl_cli.run_view import RunView

Status = Literal["pending", "running", "waiting", "suspended", "success", "failed", "canceled", "paused"]
Workflow = Annotated[str | None, typer.Argument(metavar="WORKFLOW", help="Those of one workflow only.")]

app = parser(
    """List, show, watch and delete runs; `flowctl runs` alone lists them.

    Examples:

      flowctl runs --status suspended

      flowctl runs show 06b03302

      flowctl runs watch 06b03302 --json
    """
)


@app.command("list")
def list_runs(
    workflow: Workflow = None,
    status: Annotated[Status | None, typer.Option(help="Those in that state only.")] = None,
    resource_id: Annotated[
        str | None, typer.Option(metavar="ID", help="Those of that resource only.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="How many.")] = 20,
    as_json: Json = False,
    url: Url = None,
    local: Local = False,
    directory: Dir = None,
    app: AppName = None,
    env_file: EnvFile = None,
) -> None:
    """List runs, the newest first.

    Examples:

      flowctl runs list

      flowctl runs list order --status suspended --json
    """
    query = {"status": status, "resourceId": resource_id, "perPage": str(limit)}
    filters = {key: value for key, value in query.items() if value is not None}
    where = Where(url, local, directory, app, env_file)
    asyncio.run(_list(where, workflow, filters, limit, as_json=as_json))


@app.command("show")
def show(
    run: RunId,
    as_json: Json = False,
    url: Url = None,
    local: Local = False,
    directory: Dir = None,
    app: AppName = None,
    env_file: EnvFile = None,
) -> None:
    """Show a run: its steps, then its result, its error or its question.

    Examples:

      flowctl runs show 06b03302

      flowctl runs show 06b03302 --json
    """
    asyncio.run(_show(Where(url, local, directory, app, env_file), run, as_json=as_json))


@app.command("watch")
def watch(
    run: RunId,
    as_json: Json = False,
    url: Url = None,
    local: Local = False,
    directory: Dir = None,
    app: AppName = None,
    env_file: EnvFile = None,
) -> int:
    """Follow a run until it ends or is suspended.

    With --json, one event a line.

    Exit codes: 0 success, 1 failed or canceled, 2 no such run, 3 the app cannot be loaded, 4 no server,
    5 suspended or paused, 130 interrupted.

    Examples:

      flowctl runs watch 06b03302

      flowctl runs watch 06b03302 --json
    """
    return asyncio.run(_watch(Where(url, local, directory, app, env_file), run, as_json=as_json))


@app.command("delete")
def delete(
    run: RunId,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    url: Url = None,
    local: Local = False,
    directory: Dir = None,
    app: AppName = None,
    env_file: EnvFile = None,
) -> None:
    """Forget a run and all that is recorded of it.

    On a terminal you are asked first; elsewhere --yes has to say so. Exit codes: 0 deleted or kept,
    2 no such run, 3 the app cannot be loaded, 4 no server.

    Examples:

      flowctl runs delete 06b03302 --yes
    """
    asyncio.run(_delete(Where(url, local, directory, app, env_file), run, yes=yes))


async def _list(
    where: Where, workflow: str | None, filters: Mapping[str, str], limit: int, *, as_json: bool
) -> None:
    async with connected(where) as backend:
        known = await backend.workflows()
        ids = [chosen(known, workflow)] if workflow else list(known)
        pages = await asyncio.gather(*(backend.runs(id, filters) for id in ids))
    runs = sorted((run for page in pages for run in page["runs"]), key=_created, reverse=True)[:limit]
    total = sum(int(page["total"]) for page in pages)
    if as_json:
        result({"runs": [_summary(run) for run in runs], "total": total})
        return
    if not runs:
        say("There are no such runs." if len(filters) > 1 else "There are no runs yet: try `flowctl invoke`.")
        return
    table(["RUN", "WORKFLOW", "STATUS", "CREATED", "INPUT"], [_row(run) for run in runs])
    if total > len(runs):
        say(style(f"{len(runs)} of {total}; --limit shows more", "dim"))


async def _show(where: Where, text: str, *, as_json: bool) -> None:
    async with connected(where) as backend:
        run = await find_run(backend, text)
        workflow = (await backend.workflows()).get(run.workflow_id) or {"steps": {}}
        state, option = await stored(backend, run), backend.option
    if as_json:
        result(state)
        return
    view = RunView.of(run.workflow_id, run.run_id, state.get("serializedStepGraph") or ())
    view.settle(state)
    print_tree(view)
    if state.get("payload") is not None:
        say(f"{style('input', 'dim')} {brief(state['payload'])}")
    report(run, workflow, state, option=option, as_json=False)


async def _watch(where: Where, text: str, *, as_json: bool) -> int:
    async with connected(where) as backend:
        run = await find_run(backend, text)
        workflow = (await backend.workflows())[run.workflow_id]
        events = _until_it_rests(backend, run)
        if as_json:
            async with contextlib.aclosing(events):
                async for event in events:
                    result(event)
            state = await stored(backend, run)
        else:
            state = await follow(backend, run, workflow, events)
            report(run, workflow, state, option=backend.option, as_json=False)
        return EXIT_CODES.get(str(state["status"]), 1)


async def _until_it_rests(backend: Backend, run: RunRef) -> Stream:
    """The run's events, until it has ended or is suspended now (it may have been before)."""
    async with contextlib.aclosing(backend.observe(run)) as events:
        async for event in events:
            yield event
            rests = event["type"] in {"workflow-finish", "workflow-paused"}
            if rests and (await stored(backend, run))["status"] in EXIT_CODES:
                return


async def _delete(where: Where, text: str, *, yes: bool) -> None:
    async with connected(where) as backend:
        run = await find_run(backend, text)
        if not yes and not _confirmed(run):
            return
        await backend.delete(run)
        say(f"deleted {run.workflow_id} {run.run_id}")


def _confirmed(run: RunRef) -> bool:
    if not is_interactive():
        raise ConfigurationError("Say --yes: nobody is there to be asked.")
    return confirm(f"Delete the run {typed(run.run_id)} of {run.workflow_id}?")


def _created(run: Mapping[str, Any]) -> str:
    return str(run["createdAt"])


def _summary(run: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("runId", "workflowName", "resourceId", "createdAt", "updatedAt")
    return {key: run.get(key) for key in kept} | {"status": run["snapshot"]["status"]}


def _row(run: Mapping[str, Any]) -> list[str]:
    snapshot = run["snapshot"]
    created = datetime.fromisoformat(str(run["createdAt"])).astimezone()
    given = (snapshot.get("context") or {}).get("input")
    when = f"{created:%Y-%m-%d %H:%M:%S}"
    return [typed(run["runId"]), str(run["workflowName"]), str(snapshot["status"]), when, brief(given)]
