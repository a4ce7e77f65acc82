"""`flowctl deploy`: build, then hand the bundle to the deployer."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from flowctl.deployers import BundleFacts, Deployer
from flowctl.deployers.base import MANIFEST
from flowctl.errors import EngineError
from flowctl_cli.bundler import SOURCE, build, facts_of, source_files
from flowctl_cli.commands.build import Out, Target, chosen_deployer, place, say_built
from flowctl_cli.console import say, text
from flowctl_cli.options import AppName, Dir, EnvFile
from flowctl_cli.pins import BuildError
from flowctl_cli.progress import waiting
from flowctl_cli.project import Project, find_project, load_app, load_environment

PROBE_SECONDS = 15


def command(
    target: Target = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be written and called, do nothing.")
    ] = False,
    prod: Annotated[bool, typer.Option("--prod", help="Deploy to production, not to a preview.")] = False,
    out: Out = None,
    directory: Dir = None,
    app: AppName = None,
    env_file: EnvFile = None,
) -> None:
    """Build the bundle, then call the platform's own tool with it.

    Exit codes: 0 deployed, 1 build or deploy failed, 3 the app cannot be loaded, 4 no Docker daemon.

    Examples:

      flowctl deploy --target docker --dry-run

      flowctl deploy --target vercel --prod
    """
    project = find_project(directory)
    load_environment(project, env_file)
    loaded = load_app(project, app)
    deployer = chosen_deployer(loaded, target)
    facts, folder = facts_of(project), place(project, out)
    commands = deployer.commands(facts, prod=prod)
    if dry_run:
        _show(project, deployer, facts, folder, commands)
        return
    check_platform(deployer, commands)
    with waiting("building the bundle and booting it once"):
        built = build(project, loaded, deployer, out=folder)
    say_built(built)
    for arguments in commands:
        _run(arguments, folder)


def _show(
    project: Project, deployer: Deployer, facts: BundleFacts, folder: Path, commands: Sequence[Sequence[str]]
) -> None:
    for name, content in sorted(deployer.files(facts).items()):
        text(f"would write {folder / name}:\n{_indented(content)}")
    for name in ("requirements.txt", "server.py", MANIFEST, "wheels/"):
        text(f"would write {folder / name}")
    for file in source_files(project.root, out=folder):
        text(f"would write {folder / SOURCE / file}")
    for arguments in commands:
        text(f"would call {shlex.join(arguments)}")
    text(f"  in {folder}")


def _indented(content: str) -> str:
    return "".join(f"    {line}\n" if line else "\n" for line in content.splitlines()).rstrip("\n")


def check_platform(deployer: Deployer, commands: Sequence[Sequence[str]]) -> None:
    """Raise before anything is built when the platform's tool is missing or its service does not answer."""
    probe = deployer.probe()
    for tool in dict.fromkeys(arguments[0] for arguments in commands):
        if shutil.which(tool) is None:
            missing = f"The command {tool!r} is not on PATH: install it, or look with --dry-run."
            raise EngineError(missing) if probe else BuildError(missing)
    if probe is None:
        return
    try:
        asked = subprocess.run(  # noqa: S603 - the deployer's own command
            probe, capture_output=True, text=True, timeout=PROBE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as err:
        raise EngineError(f"`{shlex.join(probe)}` did not answer within {PROBE_SECONDS} seconds.") from err
    if asked.returncode:
        raise EngineError(
            f"No {deployer.target} daemon answers: start it, then deploy again.\n{asked.stderr.strip()}"
        )


def _run(arguments: Sequence[str], folder: Path) -> None:
    say(f"$ {shlex.join(arguments)}")
    code = subprocess.run(arguments, cwd=folder, check=False).returncode  # noqa: S603 - the deployer's own command
    if code:
        raise BuildError(f"`{shlex.join(arguments)}` ended with exit code {code}: the deploy failed.")
