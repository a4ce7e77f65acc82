"""`flowctl dev`: the development server."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from flowctl.errors import ConfigurationError
from flowctl_cli.dev import debugger
from flowctl_cli.dev.options import LEVELS, DevOptions
from flowctl_cli.dev.supervisor import serve_dev
from flowctl_cli.engines.choice import check
from flowctl_cli.options import AppName, Dir, EnvFile
from flowctl_cli.project import Project, find_project


def command(
    port: Annotated[int | None, typer.Option(help="The server's port.  [default: 4111]")] = None,
    host: Annotated[str | None, typer.Option(help="The server's address.  [default: 127.0.0.1]")] = None,
    engine: Annotated[
        str | None,
        typer.Option(
            help="auto, embedded, docker, binary, or the URL of a running Inngest.  [default: auto]"
        ),
    ] = None,
    engine_port: Annotated[int | None, typer.Option(help="The engine's port.  [default: 8288]")] = None,
    engine_image: Annotated[
        str | None, typer.Option(help="The engine's image in Docker.  [default: inngest/inngest]")
    ] = None,
    reload: Annotated[
        bool | None, typer.Option("--reload/--no-reload", help="Reload on save.  [default: reload]")
    ] = None,
    open: Annotated[bool | None, typer.Option("--open/--no-open", help="Open a browser when ready.")] = None,
    https: Annotated[
        bool | None, typer.Option("--https/--no-https", help="Serve HTTPS with a local certificate.")
    ] = None,
    debug: Annotated[
        bool | None, typer.Option("--debug/--no-debug", help="Let a debugger (debugpy) attach.")
    ] = None,
    debug_port: Annotated[int | None, typer.Option(help="Where it attaches.  [default: 5678]")] = None,
    log_level: Annotated[str | None, typer.Option(help=f"{', '.join(LEVELS)}.  [default: info]")] = None,
    directory: Dir = None,
    app: AppName = None,
    env_file: EnvFile = None,
) -> int:
    """Serve the project's app, reload it on save, and run the Inngest engine beside it.

    Every option can be set in pyproject.toml under [tool.flowctl]; FLOWCTL_ENGINE sets the engine, too.
    INNGEST_DEV is set to the engine's URL before the app is imported. Exit codes: 0 stopped, 2 an option is
    wrong, 3 the app cannot be loaded, 4 a port is in use or the engine is out of reach.

    Examples:

      flowctl dev

      flowctl dev --engine docker --open

      flowctl dev --port 5000 --engine http://127.0.0.1:8288
    """
    given = {
        "port": port, "host": host,
        "engine": engine, "engine-port": engine_port, "engine-image": engine_image,
        "reload": reload, "open": open, "https": https, "debug": debug, "debug-port": debug_port,
        "log-level": log_level, "app": app, "env-file": str(env_file) if env_file else None,
    }  # fmt: skip
    return asyncio.run(serve_dev(read_options(find_project(directory), given)))


def read_options(project: Project, given: Mapping[str, Any]) -> DevOptions:
    """What was given, else FLOWCTL_ENGINE and what the project sets; raises ConfigurationError."""
    named = {key: value for key, value in given.items() if value is not None}
    engine = os.environ.get("FLOWCTL_ENGINE")
    chosen: dict[str, Any] = {**project.settings, **({"engine": engine} if engine else {}), **named}
    check(str(chosen.get("engine", "auto")), _where(named, engine))
    if chosen.get("log-level", "info") not in LEVELS:
        raise ConfigurationError(f"--log-level {chosen['log-level']!r} is none of {', '.join(LEVELS)}.")
    _check_ports(chosen)
    if chosen.get("debug"):
        debugger.check()
    env_file = chosen.pop("env-file", None)
    return DevOptions(
        project,
        env_file=_found(Path(env_file), project, given=bool(named.get("env-file"))) if env_file else None,
        **{key.replace("-", "_"): value for key, value in chosen.items() if key != "app"},
        app=named.get("app"),
    )


def _where(named: Mapping[str, Any], from_environment: str | None) -> str:
    if "engine" in named:
        return "--engine"
    return "FLOWCTL_ENGINE" if from_environment else "[tool.flowctl] engine"


def _check_ports(chosen: Mapping[str, Any]) -> None:
    for key in ("port", "engine-port", "debug-port"):
        if not 0 <= chosen.get(key, 0) <= 65535:
            raise ConfigurationError(f"--{key} {chosen[key]} is no port number.")


def _found(file: Path, project: Project, *, given: bool) -> Path:
    """A path of the command line is relative to where it was typed, one of the project to the project."""
    found = file.resolve() if given else (project.root / file).resolve()
    if not found.is_file():
        raise ConfigurationError(f"There is no file {str(file)!r}: check --env-file.")
    return found
