"""`flowctl invoke`: run a workflow or a function, show its steps, print its result."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from typing import Annotated, Any

import typer

from flowctl.errors import ConfigurationError, FlowctlError, ValidationError
from flowctl_cli.backend import Backend, NoSuchError, RunRef, Where, chosen, connected
from flowctl_cli.console import is_interactive, result, say, shown, typed
from flowctl_cli.follow import finish, follow
from flowctl_cli.forms import as_option, ask, example, parsed_schema
from flowctl_cli.functions import engine_at, engine_of
from flowctl_cli.options import AppName, Context, Data, Dir, EnvFile, Json, Local, PerStep, Url, given
from flowctl_cli.progress import waiting
from flowctl_cli.project import find_project
from flowctl_cli.tracebacks import say_error

FUNCTION_PREFIX = "workflow."


def command(
    workflow: Annotated[
        str | None, typer.Argument(metavar="WORKFLOW", help="May be left out when the app has one.")
    ] = None,
    data: Data = None,
    state: Annotated[
        str | None, typer.Option(metavar="JSON", help="The initial state: JSON, @file, or -.")
    ] = None,
    context: Context = None,
    resource_id: Annotated[
        str | None, typer.Option(metavar="ID", help="Whose run it is, for example a user's id.")
    ] = None,
    per_step: PerStep = False,
    detach: Annotated[bool, typer.Option("--detach", help="Print the run's id and leave.")] = False,
    as_json: Json = False,
    url: Url = None,
    local: Local = False,
    directory: Dir = None,
    app: AppName = None,
    env_file: EnvFile = None,
) -> int:
    """Run a workflow and show its steps as they happen; the result is printed as JSON.

    WORKFLOW may be the id of an Inngest function too. Without a dev server, a workflow runs in this
    process. On a terminal, missing input and answers to suspended steps are asked for.

    Exit codes: 0 success, 1 failed or canceled, 2 wrong usage or input, 3 the app cannot be loaded,
    4 no server, 5 suspended or paused, 130 interrupted.

    Examples:

      flowctl invoke --data '{"value": 5}'

      flowctl invoke increment-workflow --data @input.json --local

      flowctl invoke send-welcome-email --data '{"email": "ada@example.com"}'
    """
    body = {
        "inputData": _without_envelope(given(data)),
        "initialState": given(state, "--state"),
        "requestContext": given(context, "--context"),
        "resourceId": resource_id,
        "perStep": per_step,
    }
    where = Where(url, local, directory, app, env_file)
    name = workflow.removeprefix(FUNCTION_PREFIX) if workflow else None
    return asyncio.run(_invoke(where, name, body, asking=data is None, detach=detach, as_json=as_json))


async def _invoke(
    where: Where, name: str | None, body: dict[str, Any], *, asking: bool, detach: bool, as_json: bool
) -> int:
    async with connected(where, or_here=True) as backend:
        workflows = await backend.workflows()
        if name is not None and name not in workflows:
            return await _invoke_function(
                backend, where, name, list(workflows), body["inputData"], detach=detach, as_json=as_json
            )
        id = chosen(workflows, name)
        if asking:
            body["inputData"] = _asked(workflows[id])
        run = await backend.create_run(id, resource_id=body["resourceId"])
        async with _forgotten_if_refused(backend, run, workflows[id]):
            if detach:
                return await _begin(backend, where, run, body)
            ended = await follow(backend, run, workflows[id], backend.start(run, body))
        return await finish(backend, run, workflows[id], ended, as_json=as_json)


async def _begin(backend: Backend, where: Where, run: RunRef, body: Mapping[str, Any]) -> int:
    if where.local:
        raise ConfigurationError("--detach needs a server: with --local the run would end with this process.")
    await backend.begin(run, body)
    result({"runId": run.run_id})
    say(f"Watch it:\n  flowctl runs watch {typed(run.run_id)}{backend.option}")
    return 0


async def _invoke_function(
    backend: Backend,
    where: Where,
    name: str,
    workflows: list[str],
    data: Any,
    *,
    detach: bool,
    as_json: bool,
) -> int:
    functions = [str(function["id"]) for function in await backend.functions()]
    if name not in functions:
        own = [id for id in functions if not id.startswith(FUNCTION_PREFIX)]
        raise NoSuchError("workflow or function", name, [*workflows, *own])
    url = engine_of(find_project(where.directory), await backend.engine())
    async with engine_at(url) as engine:
        event_id = await engine.invoke(await engine.slug_of(name), data or {})
        if detach:
            result({"eventId": event_id})
            return 0
        with waiting(f"{name} runs on {engine.url}"):
            run = await engine.ended_run(event_id)
    succeeded = run.status == "completed"
    if as_json:
        result({"runId": run.run_id, "functionId": name, "status": run.status, "output": run.output})
    elif succeeded:
        shown(run.output)
    else:
        say(f"{name} {run.status} {run.run_id}")
        say_error(run.output if isinstance(run.output, dict) else {"message": str(run.output)})
    return 0 if succeeded else 1


def _without_envelope(data: Any) -> Any:
    if isinstance(data, dict) and set(data) == {"data"} and isinstance(data["data"], dict):
        inner = data["data"].get("inputData", ...)
        if inner is not ...:
            raise ConfigurationError(
                "That is the form of Inngest's dashboard. Here --data is the workflow's input itself: "
                f"--data {as_option(inner)}"
            )
    return data


def _asked(workflow: Mapping[str, Any]) -> Any:
    """The input, asked for on a terminal; nothing elsewhere, which the schema may refuse."""
    schema = parsed_schema(workflow.get("inputSchema"))
    if schema is None or not is_interactive():
        return None
    say(f"Input of {workflow['name']}:")
    return ask(schema)


@contextlib.asynccontextmanager
async def _forgotten_if_refused(
    backend: Backend, run: RunRef, workflow: Mapping[str, Any]
) -> AsyncGenerator[None]:
    """Where the input does not fit: keep no run that never began, and say what would fit."""
    try:
        yield
    except ValidationError as err:
        await backend.delete(run)
        schema = parsed_schema(workflow.get("inputSchema"))
        if schema is None or "Invalid input data" not in str(err):
            raise
        raise InputError(f"{err}\nThe input looks like this: --data {as_option(example(schema))}") from err


class InputError(FlowctlError):
    """The input does not fit the workflow's schema."""

    exit_code = 2
