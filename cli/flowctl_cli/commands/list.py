"""`flowctl list`: the project's workflows and functions."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from flowctl_cli.backend import Where, connected
from flowctl_cli.console import brief, result, say, style, table, users_prints_aside
from flowctl_cli.known import remember
from flowctl_cli.options import AppName, Dir, EnvFile, Json, Url
from flowctl_cli.project import find_project, load_app, load_environment

if TYPE_CHECKING:
    from inngest import Function

COLUMN = 40
NO_URL = "http://localhost"


def command(
    as_json: Json = False,
    url: Url = None,
    directory: Dir = None,
    app: AppName = None,
    env_file: EnvFile = None,
) -> None:
    """Show the project's workflows and functions, and how its app was found; with --url, a server's.

    Exit codes: 0 shown, 3 the app cannot be loaded, 4 no server.

    Examples:

      flowctl list

      flowctl list --json
    """
    where = Where(url, False, directory, app, env_file)
    found = asyncio.run(_served(where)) if url else _loaded(where)
    if as_json:
        result(found)
        return
    say(style(f"app {found['app']} (from {found['source']})", "dim"))
    table(
        ["KIND", "ID", "STEPS OR TRIGGERS", "DESCRIPTION"],
        [*map(_workflow, found["workflows"]), *map(_function, found["functions"])],
    )


def _loaded(where: Where) -> dict[str, Any]:
    from flowctl.server.wire import workflow_json  # noqa: PLC0415 - help needs no server

    project = find_project(where.directory)
    load_environment(project, where.env_file)
    with users_prints_aside():
        loaded = load_app(project, where.app)
    app = loaded.app
    remember(project.state, {id: workflow_json(workflow) for id, workflow in app.workflows.items()})
    workflows = [
        {"id": w.id, "description": w.description, "steps": list(w.steps), "engine": app.engine_for(w)}
        for w in app.workflows.values()
    ]
    functions = [{"id": f.local_id, "name": f.name, "triggers": _triggers(f)} for f in app.functions]
    return {"app": loaded.name, "source": loaded.source, "workflows": workflows, "functions": functions}


async def _served(where: Where) -> dict[str, Any]:
    async with connected(where) as backend:
        workflows = await backend.workflows()
        functions = await backend.functions()
    shown = [
        {"id": id, "description": w.get("description"), "steps": list(w["steps"])}
        for id, w in workflows.items()
    ]
    own = [function for function in functions if not str(function["id"]).startswith("workflow.")]
    return {"app": where.url, "source": "--url", "workflows": shown, "functions": own}


def _workflow(workflow: dict[str, Any]) -> list[str]:
    steps = brief(", ".join(workflow["steps"]), room=COLUMN)
    return ["workflow", workflow["id"], steps, brief(workflow["description"])]


def _function(function: dict[str, Any]) -> list[str]:
    triggers = brief(", ".join(function.get("triggers") or ()), room=COLUMN)
    name = "" if function["name"] == function["id"] else function["name"]
    return ["function", function["id"], triggers, name]


def _triggers(function: Function[Any]) -> list[str]:
    """The events and cron expressions that begin a function."""
    from inngest import TriggerEvent  # noqa: PLC0415 - help needs no inngest

    triggers = function.get_config(NO_URL).main.triggers
    return [t.event if isinstance(t, TriggerEvent) else f"cron {t.cron}" for t in triggers]
