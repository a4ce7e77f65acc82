"""`flowctl create`: a new project from a template."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from flowctl.errors import ConfigurationError
from flowctl_cli.backend import NoSuchError
from flowctl_cli.console import is_interactive, result, say, say_prose, style
from flowctl_cli.forms import choose, confirm, prompt
from flowctl_cli.options import Json
from flowctl_cli.scaffold import checked_name, free_folder, has_git, make_repository, write_project
from flowctl_templates import TEMPLATES, Template

DEFAULT_NAME, DEFAULT_TEMPLATE = "my-app", "counter"


def command(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The project's name; its folder is made here.")
    ] = None,
    template: Annotated[
        str | None, typer.Option("--template", "-t", help=f"One of {', '.join(TEMPLATES)}.")
    ] = None,
    git: Annotated[bool | None, typer.Option("--git/--no-git", help="Make a git repository of it.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Make a new project: it runs as it is, and has tests that pass. Nothing is overwritten.

    What is not said is asked for on a terminal; without one, or with --yes, the template is counter and
    no repository is made. It needs no network.

    Exit codes: 0 made, 2 the name, the template or the folder cannot be used.

    Examples:

      flowctl create my-app

      flowctl create my-app --template approval --git --yes
    """
    asking = is_interactive() and not yes
    project = checked_name(name or _name(asking=asking, yes=yes))
    target = free_folder(project, Path.cwd())
    chosen = _template(template, asking=asking)
    wants_git = git if git is not None else asking and has_git(target.parent) and _confirmed_git()
    files = write_project(chosen.name, target, project=project)
    if wants_git:
        make_repository(target)
    if as_json:
        result({"folder": str(target), "template": chosen.name, "files": [str(file) for file in files]})
        return
    for file in files:
        say(style(f"  {project}/{file}", "dim"))
    _say_next(project, chosen)


def _name(*, asking: bool, yes: bool) -> str:
    if asking:
        return _asked_name()
    if yes:
        return DEFAULT_NAME
    raise ConfigurationError("What is the project's name? flowctl create NAME")


def _asked_name() -> str:
    """A name that can be used here, asked for until it is one."""
    while True:
        name = prompt("Name of the project", default=DEFAULT_NAME)
        try:
            free_folder(checked_name(name), Path.cwd())
        except ConfigurationError as err:
            say_prose(str(err))
        else:
            return name


def _template(name: str | None, *, asking: bool) -> Template:
    if name is None and asking:
        about = {name: template.summary for name, template in TEMPLATES.items()}
        return choose("Which template?", TEMPLATES, about=about)
    if name is not None and name not in TEMPLATES:
        raise NoSuchError("template", name, TEMPLATES)
    return TEMPLATES[name or DEFAULT_TEMPLATE]


def _confirmed_git() -> bool:
    return confirm("Make a git repository of it?", default=True)


def _say_next(project: str, template: Template) -> None:
    say(f"\n{style(project, 'bold')} is ready: {template.summary}.\n")
    say(f"  cd {project}\n  flowctl dev\n\nand in another terminal\n")
    say(f"  cd {project}\n  flowctl invoke {template.workflow} --data '{template.data}'")
    if find_spec("pytest") is None or find_spec("pytest_asyncio") is None:
        say("  python -m pip install pytest pytest-asyncio")
    say("  python -m pytest")
