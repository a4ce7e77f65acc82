"""`flowctl resume`: go on with a suspended run."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from flowctl.errors import ConfigurationError, NotSuspendedError
from flowctl_cli.backend import NoSuchError, Where, connected, find_run
from flowctl_cli.console import is_interactive
from flowctl_cli.follow import Question, answer, finish, follow, questions, stands, stored
from flowctl_cli.forms import as_option
from flowctl_cli.options import (
    AppName,
    Context,
    Data,
    Dir,
    EnvFile,
    Json,
    Local,
    RunId,
    StepPath,
    Url,
    given,
)


def command(
    run: RunId,
    data: Data = None,
    step: StepPath = None,
    label: Annotated[
        str | None, typer.Option(help="The label that the step gave when it was suspended.")
    ] = None,
    item: Annotated[int | None, typer.Option(help="Which item of a foreach, from 0 on.")] = None,
    context: Context = None,
    as_json: Json = False,
    url: Url = None,
    local: Local = False,
    directory: Dir = None,
    app: AppName = None,
    env_file: EnvFile = None,
) -> int:
    """Go on with a suspended run, with the data that its step asks for.

    Which step need not be said when one is suspended. On a terminal, missing data is asked for.

    Exit codes: 0 success, 1 failed or canceled, 2 not suspended or wrong data, 3 the app cannot be loaded,
    4 no server, 5 suspended again or paused, 130 interrupted.

    Examples:

      flowctl resume 06b03302 --data '{"approved": true}'

      flowctl resume 06b03302 --step review.approve --data @answer.json
    """
    body = {
        "step": step,
        "label": label,
        "forEachIndex": item,
        "resumeData": given(data),
        "requestContext": given(context, "--context"),
    }
    where = Where(url, local, directory, app, env_file)
    return asyncio.run(_resume(where, run, body, asking=data is None, as_json=as_json))


async def _resume(where: Where, text: str, body: dict[str, Any], *, asking: bool, as_json: bool) -> int:
    async with connected(where) as backend:
        run = await find_run(backend, text)
        workflow = (await backend.workflows())[run.workflow_id]
        state = await stored(backend, run)
        if state["status"] != "suspended":
            raise NotSuspendedError(f"Run {run.run_id} is not suspended: {stands(state['status'])}.")
        asked = _asked(questions(workflow, state), body["step"])
        if asking and is_interactive():
            body |= answer(asked, confirmed_first=False) or {}
        elif body["step"] is None and body["label"] is None and len(asked) > 1:
            raise ConfigurationError(_which(asked))
        state = await follow(backend, run, workflow, backend.resume(run, body))
        return await finish(backend, run, workflow, state, as_json=as_json)


def _asked(asked: list[Question], step: str | None) -> list[Question]:
    """The questions of the step that is named, or all."""
    if step is None:
        return asked
    named = [question for question in asked if question.step == step or question.step.startswith(f"{step}.")]
    if not named:
        raise NoSuchError("suspended step", step, [question.step for question in asked])
    return named


def _which(asked: list[Question]) -> str:
    lines = [f"  --step {q.step} --data {as_option(q.sample)}" for q in asked]
    return "\n".join(["Several steps are suspended. Name one:", *lines])
