"""`flowctl list`: the project's workflows and functions."""

from __future__ import annotations

from flowctl_cli.console import result, say, text
from flowctl_cli.options import AppName, Dir, EnvFile, Json
from flowctl_cli.project import find_project, load_app, load_environment


def command(
    as_json: Json = False, directory: Dir = None, app: AppName = None, env_file: EnvFile = None
) -> None:
    """Show the project's workflows and functions.

    Examples:

      flowctl list

      flowctl list --json
    """
    project = find_project(directory)
    load_environment(project, env_file)
    loaded = load_app(project, app)
    found = loaded.app
    workflows = [
        {"id": w.id, "description": w.description, "steps": list(w.steps), "engine": found.engine_for(w)}
        for w in found.workflows.values()
    ]
    functions = [{"id": function.local_id, "name": function.name} for function in loaded.app.functions]
    if as_json:
        result({"app": loaded.name, "source": loaded.source, "workflows": workflows, "functions": functions})
        return
    say(f"app {loaded.name} (from {loaded.source})")
    for workflow in found.workflows.values():
        text(f"workflow  {workflow.id}  [{' → '.join(workflow.steps)}]  on {found.engine_for(workflow)}")
    for function in functions:
        text(f"function  {function['id']}")
