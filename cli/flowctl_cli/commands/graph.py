"""`flowctl graph`: a workflow's step graph."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from flowctl_cli.console import result, text
from flowctl_cli.options import AppName, Dir, EnvFile
from flowctl_cli.project import find_project, load_app, load_environment


def command(
    workflow: Annotated[str, typer.Argument(help="The workflow's id.")],
    form: Annotated[Literal["mermaid", "json"], typer.Option("--format", help="What to print.")] = "mermaid",
    directory: Dir = None,
    app: AppName = None,
    env_file: EnvFile = None,
) -> None:
    """Show a workflow's step graph as a Mermaid flowchart or JSON.

    Example: flowctl graph increment-workflow --format json
    """
    project = find_project(directory)
    load_environment(project, env_file)
    graph = load_app(project, app).app.get_workflow(workflow).serialized_step_graph
    if form == "json":
        result(graph, indent=2)
    else:
        text(mermaid(graph))


def mermaid(graph: list[dict[str, Any]]) -> str:
    """A flowchart: one box a step, side by side where they run at once."""
    lines = ["flowchart TD", "  start([start])"]
    before = ["start"]
    for index, node in enumerate(graph):
        boxes = _boxes(node, index)
        for id, label in boxes:
            lines.append(f'  {id}["{label}"]')
            lines.extend(f"  {source} --> {id}" for source in before)
        if node["type"] == "loop":
            lines.append(f"  {boxes[0][0]} -->|{node['loopType']}| {boxes[0][0]}")
        before = [id for id, _ in boxes]
    lines += ["  finish([end])", *(f"  {source} --> finish" for source in before)]
    return "\n".join(lines)


def _boxes(node: dict[str, Any], index: int) -> list[tuple[str, str]]:
    steps = [_innermost(step) for step in node.get("steps") or [node]]
    labels = [str(step.get("id") or node["type"]).replace('"', "'") for step in steps]
    return [(f"n{index}_{place}", label) for place, label in enumerate(labels)]


def _innermost(node: dict[str, Any]) -> dict[str, Any]:
    return _innermost(node["step"]) if isinstance(node.get("step"), dict) else node
