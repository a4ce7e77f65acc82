"""`flowctl graph`: a workflow's step graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import typer

from flowctl_cli.backend import chosen
from flowctl_cli.console import result, text, users_prints_aside
from flowctl_cli.options import AppName, Dir, EnvFile
from flowctl_cli.project import find_project, load_app, load_environment
from flowctl_cli.run_view import innermost


def command(
    workflow: Annotated[
        str | None, typer.Argument(metavar="WORKFLOW", help="May be left out when the app has one.")
    ] = None,
    form: Annotated[Literal["mermaid", "json"], typer.Option("--format", help="What to print.")] = "mermaid",
    directory: Dir = None,
    app: AppName = None,
    env_file: EnvFile = None,
) -> None:
    """Show a workflow's step graph as a Mermaid flowchart or JSON.

    Exit codes: 0 shown, 2 no such workflow, 3 the app cannot be loaded.

    Examples:

      flowctl graph increment-workflow

      flowctl graph increment-workflow --format json
    """
    from flowctl.server.wire import workflow_json  # noqa: PLC0415 - help needs no server

    project = find_project(directory)
    load_environment(project, env_file)
    with users_prints_aside():
        found = load_app(project, app).app
    id = chosen({id: workflow_json(known) for id, known in found.workflows.items()}, workflow)
    graph = found.workflows[id].serialized_step_graph
    if form == "json":
        result(graph, indent=2)
    else:
        text(mermaid(graph))


def mermaid(graph: Sequence[Mapping[str, Any]]) -> str:
    """A flowchart: one box a step, side by side where they run at once, a frame around a nested workflow."""
    drawing = _Drawing()
    ends = drawing.chain(graph, ["start"], prefix="n", indent="  ")
    edges = [*drawing.edges, *(f"  {end} --> finish" for end in ends)]
    return "\n".join(["flowchart TD", "  start([start])", *drawing.boxes, "  finish([end])", *edges])


class _Drawing:
    """The boxes (with frames, in order) and the edges of a flowchart."""

    def __init__(self) -> None:
        self.boxes: list[str] = []
        self.edges: list[str] = []

    def chain(
        self, graph: Sequence[Mapping[str, Any]], before: list[str], *, prefix: str, indent: str
    ) -> list[str]:
        """Draw nodes one after the other; answers the boxes that the last one ends in."""
        for index, node in enumerate(graph):
            ends: list[str] = []
            for place, leaf in enumerate(node.get("steps") or [node]):
                sources = [f"{source}{_condition(node, place)}" for source in before]
                ends += self._step(node, innermost(leaf), sources, f"{prefix}{index}_{place}", indent)
            before = ends
        return before

    def _step(
        self, node: Mapping[str, Any], step: Mapping[str, Any], sources: list[str], name: str, indent: str
    ) -> list[str]:
        label = _quoted(_label(node, step))
        if step.get("serializedStepFlow"):
            self.boxes.append(f'{indent}subgraph {name}["{label}"]')
            ends = self.chain(step["serializedStepFlow"], sources, prefix=f"{name}_", indent=f"{indent}  ")
            self.boxes.append(f"{indent}end")
        else:
            self.boxes.append(f"{indent}{name}{_shape(node, label)}")
            self.edges.extend(_edge(source, name) for source in sources)
            ends = [name]
        if node["type"] == "loop":
            first = ends[0] if ends == [name] else f"{name}_0_0"
            self.edges.append(f"  {ends[-1]} -->|{node['loopType']}| {first}")
        return ends


def _edge(source: str, target: str) -> str:
    origin, _, label = source.partition("\n")
    return f"  {origin} -->|{label}| {target}" if label else f"  {origin} --> {target}"


def _condition(node: Mapping[str, Any], place: int) -> str:
    """After a source's name, behind a line break: on which condition an arm runs."""
    return f"\nif {place + 1}" if node["type"] == "conditional" else ""


def _label(node: Mapping[str, Any], step: Mapping[str, Any]) -> str:
    label = str(step.get("id") or node["type"])
    if node["type"] == "foreach":
        return f"{label} (for each, {node['opts']['concurrency']} at once)"
    if node.get("duration") is not None:
        return f"{label} ({node['duration']} ms)"
    return label


def _shape(node: Mapping[str, Any], label: str) -> str:
    return f'(["{label}"])' if node["type"].startswith("sleep") else f'["{label}"]'


def _quoted(text: str) -> str:
    return text.replace('"', "#quot;").replace("\n", " ")
