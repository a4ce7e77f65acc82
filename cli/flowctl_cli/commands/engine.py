"""`flowctl engine`: the embedded engine alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    port: Annotated[int, typer.Option(help="Where it listens; 0 is any free port.")] = 8288,
    host: Annotated[str, typer.Option(help="The address it listens on.")] = "127.0.0.1",
    url: Annotated[list[str] | None, typer.Option("-u", "--url", help="An app's /api/inngest.")] = None,
    db: Annotated[Path | None, typer.Option(help="Keep runs in this file across restarts.")] = None,
    no_poll: Annotated[bool, typer.Option("--no-poll", help="Look for the apps once only.")] = False,
) -> int:
    """Run the embedded Inngest engine alone, as `inngest dev` would be used.

    Example: flowctl engine -u http://127.0.0.1:8000/api/inngest --db .flowctl/engine.db
    """
    from flowctl.engine.__main__ import main  # noqa: PLC0415 - help needs no engine

    arguments = ["--port", str(port), "--host", host]
    for app in url or []:
        arguments += ["-u", app]
    arguments += ["--db", str(db)] if db else []
    return main([*arguments, *(["--no-poll"] if no_poll else [])])
