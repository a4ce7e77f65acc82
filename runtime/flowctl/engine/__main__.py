"""The engine alone in a process: `python -m flowctl.engine`."""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from flowctl.engine.server import Engine, EngineConfig, PortInUseError

PORT_IN_USE = 4


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGINT or SIGTERM; answers the exit code."""
    given = _parser().parse_args(argv)
    config = EngineConfig(
        host=given.host,
        port=given.port,
        db=given.db,
        app_urls=tuple(given.url),
        poll=not given.no_poll,
        studio_url=given.studio_url,
        event_keys=tuple(given.event_key),
        signing_keys=tuple(given.signing_key),
    )
    listener = socket.socket(fileno=given.fd) if given.fd is not None else None
    try:
        with asyncio.Runner(loop_factory=fast_loop()) as runner:
            runner.run(_serve(Engine(config, listener=listener)))
    except PortInUseError as err:
        print(f"{err} Stop the other program, or choose another port with --port.", file=sys.stderr)  # noqa: T201 - its console
        return PORT_IN_USE
    return 0


def fast_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where it is installed (uvicorn brings it, except on Windows); else None for asyncio's own."""
    try:
        import uvloop  # noqa: PLC0415 - not everywhere
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _serve(engine: Engine) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with engine:
        print(f"flowctl engine ready on {engine.url}", flush=True)  # noqa: T201 - its console
        await stop.wait()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("flowctl engine", description=__doc__, fromfile_prefix_chars="@")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8288)
    parser.add_argument("-u", "--url", action="append", default=[], metavar="APP_URL")
    parser.add_argument("--db", type=Path)
    parser.add_argument("--no-poll", action="store_true")
    parser.add_argument("--studio-url")
    parser.add_argument("--event-key", action="append", default=[], help="only these may send events")
    parser.add_argument(
        "--signing-key",
        action="append",
        default=[],
        help="production: sign requests, demand it of API calls; a second one is accepted beside it",
    )
    parser.add_argument("--fd", type=int, help="an inherited listening socket instead of host and port")
    return parser


if __name__ == "__main__":
    sys.exit(main())
