"""The worker that serves the user's app: loads it, proves that it answers, serves, hands over, finishes.

A role of `dev.zygote`; the supervisor decides when.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowctl.take_over import take_over
from flowctl_cli.dev import debugger, logs, slow
from flowctl_cli.dev.channel import Job
from flowctl_cli.dev.server import TICK_SECONDS, Server, with_tls
from flowctl_cli.dev.shell import Shell
from flowctl_cli.project import LoadedApp, find_project, load_app, load_environment

if TYPE_CHECKING:
    from flowctl import App

TEST_URL = "http://app/api/inngest"


async def serve(job: Job) -> None:
    """Be a worker; see the module's first lines."""
    spec, channel = job.spec, job.channel
    handed_over, hand_over_to, *listeners = job.sockets
    os.environ |= spec["environment"]
    os.chdir(spec["root"])
    logs.configure(spec["log_level"])
    debugs = spec["debug_port"] is not None and debugger.listen(spec["debug_port"])
    with slow.watched(Path(spec["root"]), lambda place: channel.send(slow=place)):
        loaded, environment = _load(spec)
    channel.send(loaded=_facts(loaded) | {"environment": environment})
    shell = Shell(loaded.app.asgi)
    server = Server(shell)
    if not await server.start_app():
        raise shell.failure or RuntimeError("The app did not start.")
    await server.listen(with_tls(listeners, spec["tls"]))
    server.adopt_from(handed_over)
    channel.send(ready=True)
    debugging = None
    if spec["debug_port"] is not None and not debugs:
        debugging = asyncio.create_task(debugger.listen_soon(spec["debug_port"]))
    await _obey(job, server, shell, hand_over_to, loaded.app)
    if debugging is not None:
        debugging.cancel()
    await server.stop_app()


async def _obey(job: Job, server: Server, shell: Shell, heir: socket.socket, app: App) -> None:
    """Do what the supervisor says until it says to end (or is gone), or what is under way is done."""
    commands, seconds = job.channel.commands(), 0.0
    async for command in commands:
        match command["do"]:
            case "status":
                shell.status = command["status"]
            case "take-over":
                await take_over(app)
            case "finish":
                if job.spec["debug_port"] is not None:
                    debugger.give_back()
                server.stop_accepting(heir if command["successor"] else None)
                shell.end_streams()
                app.drain()
                steps = app.local_runner.steps_under_way
                job.channel.send(released=True, requests=shell.unfinished, steps=steps)
                if command["successor"]:
                    app.local_runner.part(lambda: job.channel.send(left=True))
                seconds = command["seconds"]
                break
            case _:
                return
    drained = asyncio.create_task(_drain(server, app, seconds))
    told_to_end = asyncio.create_task(_told_to_end(commands))
    await asyncio.wait({drained, told_to_end}, return_when=asyncio.FIRST_COMPLETED)


async def _told_to_end(commands: AsyncIterator[dict[str, Any]]) -> None:
    async for command in commands:
        if command["do"] == "end":
            return


async def _drain(server: Server, app: App, seconds: float) -> None:
    """Let requests end, then steps: with no successor, runs go on when the server starts again."""
    deadline = time.monotonic() + seconds
    await server.until_idle(within=seconds)
    app.local_runner.part()
    while app.local_runner.is_busy and time.monotonic() < deadline:  # noqa: ASYNC110 - legs of any loop
        await asyncio.sleep(TICK_SECONDS)


def _load(spec: Any) -> tuple[LoadedApp, list[str]]:
    """The app, and the files that its environment came from."""
    project = find_project(Path(spec["root"]))
    files = load_environment(project, Path(spec["env_file"]) if spec["env_file"] else None)
    return load_app(project, spec["app"]), [file.name for file in files]


def _facts(loaded: LoadedApp) -> dict[str, Any]:
    app = loaded.app
    client = app.inngest
    return {
        "app": loaded.name,
        "source": loaded.source,
        "inngest": client is not None,
        "workflows": list(app.workflows),
        "functions": [function.local_id for function in app.functions],
        "engines": sorted({client.api_origin, client.event_api_origin}) if client is not None else [],
        "registration": _registration(app),
    }


def _registration(app: App) -> str:
    """A digest of what the engine knows of the app: another one means that it has to be told."""
    configs: list[Any] = []
    for function in app.inngest_functions() if app.inngest is not None else []:
        config = function.get_config(TEST_URL)
        parts = [part for part in (config.main, config.on_failure) if part is not None]
        configs += [part.to_dict() if hasattr(part, "to_dict") else part.model_dump() for part in parts]
    return hashlib.sha256(json.dumps(configs, sort_keys=True, default=str).encode()).hexdigest()
