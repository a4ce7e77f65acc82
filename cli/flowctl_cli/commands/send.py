"""`flowctl send`: send an event to the engine."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated, Any

import typer

from flowctl.errors import ConfigurationError
from flowctl_cli.backend import did_you_mean
from flowctl_cli.console import result, say, style
from flowctl_cli.functions import Engine, engine_at, engine_of, listening
from flowctl_cli.options import Data, Dir, given
from flowctl_cli.project import find_project


def command(
    event: Annotated[str, typer.Argument(metavar="EVENT", help="The event's name.")],
    data: Data = None,
    id: Annotated[str | None, typer.Option(help="An id: a second event with it does nothing.")] = None,
    url: Annotated[str | None, typer.Option("--url", help="The engine (default: this project's).")] = None,
    directory: Dir = None,
) -> None:
    """Send an event to the Inngest engine of the project's dev server; its id is printed as JSON.

    Exit codes: 0 sent, 2 wrong data or refused, 4 no engine.

    Examples:

      flowctl send user/signed-up --data '{"email": "ada@example.com"}'

      flowctl send orders/import --data @orders.json --id import-2026-11
    """
    payload = given(data)
    if payload is not None and not isinstance(payload, dict):
        raise ConfigurationError("--data must be a JSON object, for example '{\"key\": 1}'.")
    body = {"name": event, "data": payload or {}} | ({"id": id} if id else {})
    asyncio.run(_send(engine_of(find_project(directory), url), body))


async def _send(url: str, event: dict[str, Any]) -> None:
    key = os.environ.get("INNGEST_EVENT_KEY") or "dev"
    async with engine_at(url) as engine:
        sent = await engine.send(key, event)
        say(style(await _who_listens(engine, str(event["name"])), "dim"))
    result(sent)


async def _who_listens(engine: Engine, name: str) -> str:
    functions = await engine.functions()
    slugs = listening(functions, name)
    if slugs:
        return f"sent {name} to {engine.url}; it begins {', '.join(slugs)}"
    names = [str(t["event"]) for f in functions for t in f.get("triggers") or () if t.get("event")]
    return f"sent {name} to {engine.url}; no function listens to it.{did_you_mean(name, names)}"
