"""`flowctl build`: the deployable bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flowctl.deployers import Deployer, DockerDeployer, VercelDeployer
from flowctl.errors import ConfigurationError
from flowctl_cli.bundler import Built, build
from flowctl_cli.console import result, say
from flowctl_cli.options import AppName, Dir, EnvFile, Json
from flowctl_cli.progress import waiting
from flowctl_cli.project import LoadedApp, Project, find_project, load_app, load_environment

DEPLOYERS: dict[str, type[DockerDeployer | VercelDeployer]] = {
    "docker": DockerDeployer,
    "vercel": VercelDeployer,
}

Out = Annotated[Path | None, typer.Option("--out", help="The bundle's folder.  [default: .output]")]
Target = Annotated[
    str | None, typer.Option("--target", help="docker or vercel.  [default: the app's deployer, else docker]")
]


def command(
    out: Out = None,
    target: Target = None,
    as_json: Json = False,
    directory: Dir = None,
    app: AppName = None,
    env_file: EnvFile = None,
) -> None:
    """Package the project as a deployable bundle, and boot it once.

    Exit codes: 0 built, 1 the bundle cannot be built or does not start, 3 the app cannot be loaded.

    Examples:

      flowctl build

      flowctl build --target vercel --out deploy
    """
    project = find_project(directory)
    load_environment(project, env_file)
    loaded = load_app(project, app)
    deployer = chosen_deployer(loaded, target)
    with waiting("building the bundle and booting it once"):
        built = build(project, loaded, deployer, out=place(project, out))
    if as_json:
        result({"folder": str(built.folder), "contentHash": built.content_hash, "files": list(built.files)})
        return
    say_built(built)


def place(project: Project, out: Path | None) -> Path:
    """Where the bundle goes: `--out` from here, else `.output` in the project."""
    return out.resolve() if out else project.root / ".output"


def chosen_deployer(loaded: LoadedApp, target: str | None) -> Deployer:
    """The app's own deployer where it fits the target, else a plain one."""
    own = loaded.app.deployer
    if own is not None and target in {None, own.target}:
        return own
    name = target or "docker"
    if name not in DEPLOYERS:
        raise ConfigurationError(f"--target {name!r} is none of {', '.join(DEPLOYERS)}.")
    return DEPLOYERS[name]()


def say_built(built: Built) -> None:
    """Tell where the bundle is and how it is run."""
    say(f"built {built.folder} ({len(built.files)} files, {built.content_hash[:19]}…), booted once")
    say(f"run it: flowctl start --dir {built.folder}")
