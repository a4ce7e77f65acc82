"""`flowctl dev`: the development server."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated

import typer

from flowctl_cli.dev.options import DevOptions
from flowctl_cli.dev.supervisor import serve_dev
from flowctl_cli.engines.choice import check
from flowctl_cli.options import AppName, Dir, EnvFile
from flowctl_cli.project import find_project


def command(
    port: Annotated[int | None, typer.Option(help="The server's port.  [default: 4111]")] = None,
    host: Annotated[str | None, typer.Option(help="The server's address.  [default: 127.0.0.1]")] = None,
    engine: Annotated[
        str | None, typer.Option(help="auto, embedded, or the URL of a running Inngest.  [default: auto]")
    ] = None,
    engine_port: Annotated[int | None, typer.Option(help="The engine's port.  [default: 8288]")] = None,
    no_reload: Annotated[bool, typer.Option("--no-reload", help="Do not watch for changes.")] = False,
    directory: Dir = None,
    app: AppName = None,
    env_file: EnvFile = None,
) -> int:
    """Serve the project's app, reload it on save, and run the Inngest engine beside it.

    INNGEST_DEV is set to the engine's URL before the app is imported. Exit codes: 0 stopped,
    3 the app cannot be loaded (with --no-reload), 4 a port is in use.

    Examples:

      flowctl dev

      flowctl dev --port 5000 --engine http://127.0.0.1:8288
    """
    project = find_project(directory)
    settings = project.settings
    chosen = engine or os.environ.get("FLOWCTL_ENGINE") or str(settings.get("engine", "auto"))
    check(chosen, "--engine")
    options = DevOptions(
        project=project,
        host=host or str(settings.get("host", "127.0.0.1")),
        port=int(settings.get("port", 4111)) if port is None else port,
        engine=chosen,
        engine_port=int(settings.get("engine-port", 8288)) if engine_port is None else engine_port,
        reload=not no_reload,
        app=app,
        env_file=env_file,
    )
    return asyncio.run(serve_dev(options))
