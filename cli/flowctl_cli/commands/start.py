"""`flowctl start`: a bundle as in production."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.util
import logging
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowctl.deployers.base import MANIFEST
from flowctl.engine.loop import fast_loop
from flowctl.errors import ConfigurationError, EngineError, FlowctlError
from flowctl_cli.console import say
from flowctl_cli.project import ProjectError, user_traceback

if TYPE_CHECKING:
    import uvicorn

DRAIN_SECONDS = 30
BACKLOG = 2048
READY = "serving "
OBJECTS_A_LOOK = 10_000


def command(
    folder: Annotated[Path, typer.Option("--dir", help="The bundle's folder.")] = Path(".output"),
    host: Annotated[
        str | None, typer.Option(help="The address it listens on.  [default: $HOST, else 127.0.0.1]")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="The port; 0 is any free one.  [default: $PORT, else 4111]"),
    ] = None,
) -> None:
    """Run a bundle as in production: no reload, no engine beside it.

    SIGTERM and Ctrl-C let running requests end (up to 30 seconds), a second one does not. Which Inngest it
    talks to is said by INNGEST_EVENT_KEY, INNGEST_SIGNING_KEY and INNGEST_BASE_URL. Exit codes: 0 stopped,
    3 no bundle or it cannot be loaded, 4 the port is in use.

    Examples:

      flowctl start

      PORT=8080 flowctl start --dir .output --host 0.0.0.0
    """
    application = load_bundle(folder.resolve())
    listener = _bound(host or os.environ.get("HOST") or "127.0.0.1", _port(port))
    with contextlib.closing(listener), asyncio.Runner(loop_factory=fast_loop()) as runner:
        runner.run(_serve(application, listener))


def load_bundle(folder: Path) -> Any:
    """The ASGI application of a bundle; raises ProjectError, with the user's own traceback if any."""
    server = folder / "server.py"
    if not (folder / MANIFEST).is_file() or not server.is_file():
        raise ProjectError(f"There is no bundle in {str(folder)!r}: run `flowctl build`, or check --dir.")
    # A name of its own: the project may have a module `server`.
    spec = importlib.util.spec_from_file_location("flowctl_bundle", server)
    if spec is None or spec.loader is None:
        raise ProjectError(f"{server} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except FlowctlError as err:
        raise ProjectError(str(err)) from err
    except Exception as err:
        raise ProjectError(user_traceback(err)) from err
    return module.app


def _port(given: int | None) -> int:
    if given is not None:
        return given
    text = os.environ.get("PORT") or "4111"
    if not text.isdecimal() or int(text) > 65535:
        raise ConfigurationError(f"PORT={text!r} is no port number.")
    return int(text)


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as err:
        raise EngineError(
            f"Cannot listen on {host}:{port}: {err.strerror or err}. Choose another --port."
        ) from err
    return listener


async def _serve(application: Any, listener: socket.socket) -> None:
    import uvicorn  # noqa: PLC0415 - help needs no server

    config = uvicorn.Config(
        application, log_level="info", lifespan="on", timeout_graceful_shutdown=DRAIN_SECONDS
    )
    server = uvicorn.Server(config)
    # Stopping on request is success: uvicorn would raise the signal again after it has drained.
    server.capture_signals = contextlib.nullcontext  # pyright: ignore[reportAttributeAccessIssue] - the loop has the handlers
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _stop, server)
    logging.getLogger("uvicorn.error").addFilter(_is_no_cancellation)
    serving = asyncio.create_task(server.serve([listener]))
    await _announce(server, serving, listener)
    await serving
    if not server.started:
        raise ProjectError("The app did not start; see above.")


def _stop(server: uvicorn.Server) -> None:
    """The first signal lets requests end, the second does not; the app is shut down either way."""
    if server.should_exit:
        for task in server.server_state.tasks:
            task.cancel()
    server.should_exit = True


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    """A request that was not let end is no error of the app's."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


def settle_memory() -> None:
    """Once all is loaded: what is there now stays, so that the garbage collector need not look at it again.

    It also looks for rings of garbage less often: a request makes thousands of objects and hardly a ring. An
    app whose runs crowd it does an eighth more for it.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(OBJECTS_A_LOOK)


async def _announce(server: uvicorn.Server, serving: asyncio.Task[None], listener: socket.socket) -> None:
    while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn tells by a flag only
        await asyncio.sleep(0.002)
    if server.started:
        settle_memory()
        host, port = listener.getsockname()[:2]
        say(f"{READY}http://{f'[{host}]' if ':' in host else host}:{port}")
