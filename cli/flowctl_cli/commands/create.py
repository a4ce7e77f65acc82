"""`flowctl create`: a new project from a template."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

import flowctl_templates
from flowctl.errors import ConfigurationError
from flowctl_cli.console import say

NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")


def command(
    name: Annotated[str | None, typer.Argument(help="The project's name; its folder is made here.")] = None,
    template: Annotated[str, typer.Option("--template", "-t", help="Which template.")] = "counter",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")] = False,
) -> None:
    """Make a new project: it runs as it is, and has tests that pass.

    Example: flowctl create my-app --template counter
    """
    name = name or ("my-app" if yes else str(typer.prompt("Name of the project", default="my-app")))
    if not NAME.fullmatch(name):
        raise ConfigurationError(f"{name!r} is no project name: use small letters, digits and dashes.")
    if template not in flowctl_templates.names():
        listed = ", ".join(flowctl_templates.names())
        raise ConfigurationError(f"There is no template {template!r}. There are: {listed}.")
    target = Path.cwd() / name
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigurationError(f"{name!r} exists and is not empty: choose another name.")
    for path in flowctl_templates.scaffold(template, target, project=name):
        say(f"  {path.relative_to(target.parent)}")
    say(f"\nNow:\n  cd {name}\n  flowctl dev\nand in another terminal:\n")
    say("  flowctl invoke --data '{\"value\": 5}'")
