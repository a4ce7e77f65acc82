"""The warm process that forks workers: everything heavy is imported, nothing runs.

Single-threaded and without an event loop, so that forking is safe. The supervisor sends it requests over a
socket; a worker's life hangs on a socket of its own: when the supervisor is gone, however it went, the
other end closes and the worker ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MESSAGE_BYTES = 1 << 20
HEAVY = (
    "inngest",
    "uvicorn",
    "uvicorn.protocols.http.httptools_impl",
    "uvicorn.protocols.websockets.auto",
    "uvicorn.lifespan.on",
    "uvicorn.loops.auto",
    "dotenv",
    "flowctl_cli.project",
    "flowctl",
    "flowctl.engine.server",
    "flowctl.runners.dispatch",
    "flowctl.runners.local",
    "flowctl.server.app",
)


@dataclass(frozen=True, slots=True)
class Channel:
    """JSON lines over a socket, in a worker's loop."""

    sock: socket.socket

    def send(self, **message: Any) -> None:
        """Tell the supervisor; when it is gone there is nobody to tell."""
        with contextlib.suppress(OSError):
            self.sock.sendall(json.dumps(message).encode() + b"\n")

    async def stopped(self) -> None:
        """Return when the supervisor says stop, or is gone."""
        self.sock.setblocking(False)
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().sock_recv(self.sock, 1)


def main(fd: int) -> None:
    """Fork a worker for every request until the supervisor closes its end."""
    for module in HEAVY:
        importlib.import_module(module)
    _share_tls_context()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    control = socket.socket(fileno=fd)
    while True:
        message, fds, _, _ = socket.recv_fds(control, MESSAGE_BYTES, 2)
        if not message:
            return
        if os.fork() == 0:
            control.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _worker(json.loads(message), Channel(socket.socket(fileno=fds[0])), fds[1])
        control.sendall(b".")
        for received in fds:
            os.close(received)


def _share_tls_context() -> None:
    """Have all HTTP clients of a worker use one TLS context, made before the fork.

    Making one parses every root certificate, which takes longer than all else that a reload does, and each
    client of the SDK makes two.
    """
    default: Any = importlib.import_module("httpx._transports.default")
    default.create_ssl_context = functools.cache(default.create_ssl_context)
    default.create_ssl_context(verify=True, cert=None, trust_env=True)


def _worker(spec: Mapping[str, Any], channel: Channel, listener_fd: int) -> None:
    code = 1
    try:
        listener = socket.socket(fileno=listener_fd)
        role = _engine if spec["role"] == "engine" else _app
        asyncio.run(role(spec, channel, listener))
        code = 0
    except BaseException as err:  # noqa: BLE001 - a worker reports whatever ends it
        channel.send(error=_shown(err), pid=os.getpid())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


async def _engine(spec: Mapping[str, Any], channel: Channel, listener: socket.socket) -> None:
    from flowctl.engine import Engine, EngineConfig  # noqa: PLC0415 - a role of its own

    config = EngineConfig(db=Path(spec["db"]), studio_url=spec["studio_url"])
    async with Engine(config, listener=listener):
        channel.send(ready=True, pid=os.getpid())
        await channel.stopped()


async def _app(spec: Mapping[str, Any], channel: Channel, listener: socket.socket) -> None:
    import uvicorn  # noqa: PLC0415 - imported before the fork

    from flowctl_cli.project import find_project, load_app, load_environment  # noqa: PLC0415 - as above

    os.environ |= spec["environment"]
    os.chdir(spec["root"])
    project = find_project(Path(spec["root"]))
    load_environment(project, Path(spec["env_file"]) if spec["env_file"] else None)
    loaded = load_app(project, spec["app"])
    config = uvicorn.Config(
        loaded.app.asgi,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=spec["grace"],
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # pyright: ignore[reportAttributeAccessIssue] - signals are the supervisor's
    serving = asyncio.create_task(server.serve([listener]))
    while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn tells by a flag only
        await asyncio.sleep(0.002)
    if serving.done():
        await serving
        raise RuntimeError("the server ended while it started")
    channel.send(
        ready=True,
        pid=os.getpid(),
        app=loaded.name,
        source=loaded.source,
        inngest=loaded.app.inngest is not None,
        workflows=list(loaded.app.workflows),
        functions=[function.local_id for function in loaded.app.functions],
    )
    await channel.stopped()
    for accepting in server.servers:
        accepting.close()
    channel.send(released=True)
    # What is cut off now was asked to end; the log has nothing to add.
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    server.should_exit = True
    await serving


def _shown(err: BaseException) -> str:
    from flowctl.errors import FlowctlError  # noqa: PLC0415 - imported before the fork
    from flowctl_cli.project import user_traceback  # noqa: PLC0415 - as above

    return str(err) if isinstance(err, FlowctlError) else user_traceback(err)


if __name__ == "__main__":
    main(int(sys.argv[1]))
