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
    event_key: Annotated[
        list[str] | None, typer.Option(envvar="INNGEST_EVENT_KEY", help="Only these may send events.")
    ] = None,
    signing_key: Annotated[
        list[str] | None,
        typer.Option(
            envvar="INNGEST_SIGNING_KEY",
            help="Sign requests, demand it of API calls; a second one is accepted beside it.",
        ),
    ] = None,
    max_queued: Annotated[int, typer.Option(metavar="JOBS", help="Answer 503 to events above it.")] = 500_000,
    retention: Annotated[
        float, typer.Option(metavar="DAYS", help="Forget what ended longer ago; 0 keeps it.")
    ] = 30,
    drain: Annotated[
        float, typer.Option(metavar="SECONDS", help="With --db: let calls in flight end first.")
    ] = 10,
    retry_interval: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Between tries; 0 waits longer each time.")
    ] = 0,
) -> int:
    """Run the embedded Inngest engine alone, as `inngest dev` would be used.

    With a signing key it is a production server, as `inngest start`: apps must have the same key.

    Example: flowctl engine -u http://127.0.0.1:8000/api/inngest --db .flowctl/engine.db
    """
    from flowctl.engine.__main__ import main  # noqa: PLC0415 - help needs no engine

    arguments = [f"--port={port}", f"--host={host}", f"--max-queued={max_queued}"]
    arguments += [f"--retention={retention}", f"--drain={drain}", f"--retry-interval={retry_interval}"]
    arguments += [f"--url={app}" for app in url or ()]
    arguments += [f"--event-key={key}" for key in event_key or ()]
    arguments += [f"--signing-key={key}" for key in signing_key or ()]
    arguments += [f"--db={db}"] if db else []
    return main([*arguments, *(["--no-poll"] if no_poll else [])])
