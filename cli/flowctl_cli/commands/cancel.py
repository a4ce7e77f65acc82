"""`flowctl cancel`: end a run."""

from __future__ import annotations

import asyncio

from flowctl_cli.backend import Where, connected, find_run
from flowctl_cli.console import result, say
from flowctl_cli.follow import stands, stored
from flowctl_cli.options import AppName, Dir, EnvFile, Json, Local, RunId, Url


def command(
    run: RunId,
    as_json: Json = False,
    url: Url = None,
    local: Local = False,
    directory: Dir = None,
    app: AppName = None,
    env_file: EnvFile = None,
) -> int:
    """End a run as canceled: for good. A run that has ended stays as it is.

    Exit codes: 0 canceled or ended before, 2 no such run, 3 the app cannot be loaded, 4 no server.

    Examples:

      flowctl cancel 06b03302
    """
    return asyncio.run(_cancel(Where(url, local, directory, app, env_file), run, as_json=as_json))


async def _cancel(where: Where, text: str, *, as_json: bool) -> int:
    async with connected(where) as backend:
        run = await find_run(backend, text)
        before = str((await stored(backend, run))["status"])
        await backend.cancel(run)
        after = str((await stored(backend, run))["status"])
    if as_json:
        result({"runId": run.run_id, "workflowName": run.workflow_id, "status": after})
    elif before == after:
        say(f"{run.workflow_id} {run.run_id} stays as it is: {stands(after)}.")
    else:
        say(f"{run.workflow_id} {run.run_id} {after}")
    return 0
