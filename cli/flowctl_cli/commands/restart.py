"""`flowctl restart`: go on with a run whose process is gone."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from flowctl.errors import NotActiveError
from flowctl_cli.backend import Backend, RunRef, Stream, Where, connected, find_run
from flowctl_cli.follow import EXIT_CODES, finish, follow, stands, stored
from flowctl_cli.options import AppName, Dir, EnvFile, Json, Local, RunId, Url

LAST_EVENTS_SECONDS = 0.3


def command(
    run: RunId,
    as_json: Json = False,
    url: Url = None,
    local: Local = False,
    directory: Dir = None,
    app: AppName = None,
    env_file: EnvFile = None,
) -> int:
    """Go on with a run that was interrupted; finished steps do not run again.

    It is refused while the run's process lives. A dev server takes such runs over by itself.

    Exit codes: 0 success, 1 failed or canceled, 2 not interrupted, 3 the app cannot be loaded, 4 no server,
    5 suspended or paused, 130 interrupted.

    Examples:

      flowctl restart 06b03302

      flowctl restart 06b03302 --local
    """
    return asyncio.run(_restart(Where(url, local, directory, app, env_file), run, as_json=as_json))


async def _restart(where: Where, text: str, *, as_json: bool) -> int:
    async with connected(where) as backend:
        run = await find_run(backend, text)
        workflow = (await backend.workflows())[run.workflow_id]
        status = str((await stored(backend, run))["status"])
        if status in EXIT_CODES:
            raise NotActiveError(f"Run {run.run_id} is not interrupted: {stands(status)}.")
        state = await follow(backend, run, workflow, _events(backend, run))
        return await finish(backend, run, workflow, state, as_json=as_json)


async def _events(backend: Backend, run: RunRef) -> Stream:
    """All events of the run, those before the restart too, until the restart is through."""
    restarted = asyncio.ensure_future(backend.restart(run))
    async with contextlib.aclosing(backend.observe(run)) as events:
        following = asyncio.ensure_future(anext(events, None))
        while await _first(restarted, following):
            event = following.result()
            if event is None:
                break
            following = asyncio.ensure_future(anext(events, None))
            yield event
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following
    await restarted


async def _first(restarted: asyncio.Future[None], following: asyncio.Future[Any]) -> bool:
    """Whether there is another event; when the restart is through, only what comes at once counts."""
    await asyncio.wait({restarted, following}, return_when=asyncio.FIRST_COMPLETED)
    if not following.done():
        await asyncio.wait({following}, timeout=LAST_EVENTS_SECONDS)
    return following.done()
