"""`flowctl send`: send an event to the engine."""

from __future__ import annotations

import os
from typing import Annotated

import httpx
import typer

from flowctl.errors import ConfigurationError
from flowctl_cli.client import ServerUnreachableError
from flowctl_cli.commands.invoke import parsed
from flowctl_cli.console import result
from flowctl_cli.dev_lock import engine_url
from flowctl_cli.options import Dir
from flowctl_cli.project import find_project


def command(
    event: Annotated[str, typer.Argument(help="The event's name.")],
    data: Annotated[str, typer.Option("--data", "-d", help="JSON, @file or - for stdin.")] = "{}",
    url: Annotated[str | None, typer.Option("--url", help="The engine (default: this project's).")] = None,
    directory: Dir = None,
) -> None:
    """Send an event to the Inngest engine of the project's dev server.

    Example: flowctl send user/signed-up --data '{"email": "ada@example.com"}'
    """
    given = parsed(data)
    if not isinstance(given, dict):
        raise ConfigurationError("--data must be a JSON object.")
    target = url or engine_url(find_project(directory)) or os.environ.get("INNGEST_DEV")
    target = target if target and target.startswith("http") else "http://127.0.0.1:8288"
    key = os.environ.get("INNGEST_EVENT_KEY", "dev")
    try:
        answer = httpx.post(f"{target}/e/{key}", json={"name": event, "data": given}, timeout=10)
    except httpx.TransportError as err:
        raise ServerUnreachableError(
            f"No answer from the engine at {target} ({err}). Is `flowctl dev` running?"
        ) from err
    if answer.is_error:
        raise ConfigurationError(f"The engine refused the event: {answer.json().get('error')}")
    result(answer.json())
