"""The engine alone in a process: `python -m flowctl.engine`."""

from __future__ import annotations

import argparse
import asyncio
import math
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from flowctl.engine import logs
from flowctl.engine.loop import fast_loop
from flowctl.engine.server import CannotListenError, Engine, EngineConfig
from flowctl.engine.signing import InvalidKeyError
from flowctl.engine.store import DatabaseError

USAGE = 2
UNUSABLE_DATABASE = 3
CANNOT_LISTEN = 4
LAST_PORT = 65_535


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGINT or SIGTERM; answers the exit code."""
    given = _parser().parse_args(argv)
    logs.configure()
    config = EngineConfig(
        host=given.host,
        port=given.port,
        db=given.db,
        app_urls=tuple(given.url),
        poll=not given.no_poll,
        studio_url=given.studio_url,
        event_keys=tuple(given.event_key),
        signing_keys=tuple(given.signing_key),
        max_queued=given.max_queued,
        retention_days=given.retention or None,
        drain_seconds=given.drain if given.db else 0,
        retry_seconds=given.retry_interval or None,
    )
    listener = socket.socket(fileno=given.fd) if given.fd is not None else None
    try:
        with asyncio.Runner(loop_factory=fast_loop()) as runner:
            runner.run(_serve(Engine(config, listener=listener)))
    except CannotListenError as err:
        return _told(str(err), CANNOT_LISTEN)
    except DatabaseError as err:
        return _told(str(err), UNUSABLE_DATABASE)
    except InvalidKeyError as err:
        return _told(str(err), USAGE)
    return 0


def _told(reason: str, code: int) -> int:
    print(reason, file=sys.stderr)  # noqa: T201 - its console
    return code


async def _serve(engine: Engine) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def end() -> None:
        """The first signal lets calls in flight end, the second does not."""
        if stop.is_set():
            engine.hurry()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    async with engine:
        for warning in engine.config.warnings:
            print(f"Warning: {warning}", file=sys.stderr, flush=True)  # noqa: T201 - its console
        print(f"flowctl engine ready on {engine.url}", flush=True)  # noqa: T201 - its console
        await stop.wait()
        if engine.calls_in_flight and engine.config.drain_seconds:
            print(f"waiting for {engine.calls_in_flight} calls in flight", flush=True)  # noqa: T201 - its console


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > LAST_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: give a number from 0 to {LAST_PORT}")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 on")
    return int(text)


def _amount(text: str) -> float:
    try:
        amount = float(text)
    except ValueError:
        amount = math.nan
    if not 0 <= amount < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 on")
    return amount


def _app_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise argparse.ArgumentTypeError(f"{text!r} is no URL such as http://127.0.0.1:8000/api/inngest")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("flowctl engine", description=__doc__, fromfile_prefix_chars="@")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=_port, default=8288)
    parser.add_argument("-u", "--url", type=_app_url, action="append", default=[], metavar="APP_URL")
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
    parser.add_argument(
        "--max-queued", type=_count, default=500_000, metavar="JOBS", help="answer 503 to events above it"
    )
    parser.add_argument(
        "--retention", type=_amount, default=30, metavar="DAYS", help="forget what ended before; 0: never"
    )
    parser.add_argument(
        "--drain",
        type=_amount,
        default=10,
        metavar="SECONDS",
        help="with --db: let calls in flight end first",
    )
    parser.add_argument(
        "--retry-interval",
        type=_amount,
        default=0,
        metavar="SECONDS",
        help="between tries; 0: later each time",
    )
    parser.add_argument("--fd", type=int, help="an inherited listening socket instead of host and port")
    return parser


if __name__ == "__main__":
    sys.exit(main())
