"""`flowctl time-travel`: run again from a step on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from flowctl.errors import ConfigurationError
from flowctl_cli.backend import NoSuchError, Where, connected, find_run
from flowctl_cli.console import is_interactive
from flowctl_cli.follow import finish, follow
from flowctl_cli.forms import choose
from flowctl_cli.options import AppName, Data, Dir, EnvFile, Json, Local, PerStep, RunId, Url, given


def command(
    run: RunId,
    step: Annotated[
        str | None,
        typer.Option("--step", "-s", metavar="STEP", help="Where to begin; `outer.inner` if nested."),
    ] = None,
    data: Data = None,
    resume_data: Annotated[
        str | None, typer.Option(metavar="JSON", help="Answer the step's suspension: JSON, @file, or -.")
    ] = None,
    past: Annotated[
        str | None,
        typer.Option("--context", metavar="JSON", help="Records of earlier steps, by id: JSON, @file, or -."),
    ] = None,
    state: Annotated[
        str | None, typer.Option(metavar="JSON", help="The state at that point: JSON, @file, or -.")
    ] = None,
    per_step: PerStep = False,
    as_json: Json = False,
    url: Url = None,
    local: Local = False,
    directory: Dir = None,
    app: AppName = None,
    env_file: EnvFile = None,
) -> int:
    """Run again from a step on, with what came before as it was recorded.

    --data is the step's input; without it, what the step got before. On a terminal, a missing --step is
    asked for.

    Exit codes: 0 success, 1 failed or canceled, 2 no such step or no past for it, 3 the app cannot be loaded,
    4 no server, 5 suspended or paused, 130 interrupted.

    Examples:

      flowctl time-travel 06b03302 --step charge

      flowctl time-travel 06b03302 --step review.approve --data '{"amount": 3}'
    """
    body = {
        "step": step,
        "inputData": given(data),
        "resumeData": given(resume_data, "--resume-data"),
        "context": given(past, "--context"),
        "initialState": given(state, "--state"),
        "perStep": per_step,
    }
    return asyncio.run(_travel(Where(url, local, directory, app, env_file), run, body, as_json=as_json))


async def _travel(where: Where, text: str, body: dict[str, Any], *, as_json: bool) -> int:
    async with connected(where) as backend:
        run = await find_run(backend, text)
        workflow = (await backend.workflows())[run.workflow_id]
        known = workflow.get("allSteps") or workflow["steps"]
        if body["step"] is None:
            body["step"] = _chosen_step(known)
        if body["step"] not in known:
            raise NoSuchError("step", str(body["step"]), known)
        state = await follow(backend, run, workflow, backend.time_travel(run, body))
        return await finish(backend, run, workflow, state, as_json=as_json)


def _chosen_step(known: Iterable[str]) -> str:
    if not is_interactive():
        raise ConfigurationError(f"From which step? --step, one of {', '.join(known)}.")
    return choose("From which step?", {step: step for step in known})
