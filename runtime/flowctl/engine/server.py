"""The engine put together: store, ledger, executor and HTTP interface, in one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import uvicorn
from starlette.types import ASGIApp

from flowctl.engine.access import LOOPBACK
from flowctl.engine.api import Api, create_api
from flowctl.engine.apps import Apps
from flowctl.engine.backlog import Backlog
from flowctl.engine.executor import Executor
from flowctl.engine.ledger import Ledger
from flowctl.engine.realtime import TOKEN_SECRET, Tokens
from flowctl.engine.retention import Retention
from flowctl.engine.signing import Keys
from flowctl.engine.store import DatabaseError, Store
from flowctl.engine.syncs import Syncs
from flowctl.engine.timing import Clock, SystemClock
from flowctl.engine.transport import Transport
from flowctl.engine.turn import BACKOFF_MS

STOP_SECONDS = 1


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Where the engine listens (port 0: any free one), where it keeps its state, which apps it looks for.

    Above `max_queued` jobs senders of events are told to try again. Runs and events are forgotten
    `retention_days` after their end (None: never). A stopping engine waits `drain_seconds` for calls in
    flight. What failed is tried again after `retry_seconds` (None: later each time).
    """

    host: str = "127.0.0.1"
    port: int = 8288
    db: Path | None = None
    app_urls: tuple[str, ...] = ()
    poll: bool = True
    studio_url: str | None = None
    event_keys: tuple[str, ...] = ()
    signing_keys: tuple[str, ...] = ()
    max_queued: int = 500_000
    retention_days: float | None = 30
    drain_seconds: float = 0
    retry_seconds: float | None = None

    @property
    def backoff(self) -> Sequence[int]:
        """Milliseconds between tries."""
        return BACKOFF_MS if self.retry_seconds is None else (round(self.retry_seconds * 1000),)

    @property
    def is_local(self) -> bool:
        """Whether it listens to its own machine alone."""
        return self.host in LOOPBACK

    @property
    def warnings(self) -> list[str]:
        """What strangers may do as it is configured."""
        open_to = "whoever reaches this machine" if not self.is_local else "every program of this machine"
        if self.signing_keys and not self.event_keys:
            return [f"without --event-key {open_to} may send events."]
        if not self.is_local and not self.signing_keys:
            return [f"without --signing-key {open_to} may see, begin and cancel runs."]
        return []


class CannotListenError(OSError):
    """The engine's address cannot be had; says what to do."""

    def __init__(self, host: str, port: int, reason: OSError) -> None:
        is_taken = reason.errno == errno.EADDRINUSE
        advice = "Stop the other program, or choose another port" if is_taken else "Choose another address"
        option = "--port" if is_taken else "--host or --port"
        super().__init__(f"Cannot listen on {host}:{port}: {reason.strerror}. {advice} with {option}.")


class Engine:
    """A running engine: `async with Engine(config) as engine: engine.url`."""

    def __init__(
        self, config: EngineConfig, *, listener: socket.socket | None = None, clock: Clock | None = None
    ) -> None:
        self.config, self.clock = config, clock or SystemClock()
        self._listener = listener or _listen(config.host, config.port)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def url(self) -> str:
        """Where it is reached."""
        host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
        return f"http://{host}:{self._listener.getsockname()[1]}"

    async def __aenter__(self) -> Self:
        try:
            self._store = Store(self.config.db)
        except DatabaseError:
            self._listener.close()
            raise
        woken = asyncio.Event()
        ledger = Ledger(self._store, woken.set, Backlog(self._store, self.config.max_queued))
        apps = Apps(ledger, self.clock)
        apps.load()
        keys = Keys(self.config.signing_keys, self.config.event_keys)
        backoff = self.config.backoff
        self._executor = Executor(ledger, keys=keys, woken=woken, clock=self.clock, backoff=backoff)
        self.transport = Transport()
        tokens = Tokens(self._store.secret(TOKEN_SECRET))
        api, syncs = (
            Api(ledger, apps, keys, tokens, self.clock, self.config.studio_url, backoff),
            Syncs(apps, keys, self.transport),
        )
        local_only = self.config.is_local and not keys.signs
        self._server = _server(create_api(api, local_only=local_only))
        self._tasks = [
            asyncio.create_task(self._server.serve([self._listener])),
            asyncio.create_task(self._executor.run()),
            asyncio.create_task(Retention(self._store, self.config.retention_days, self.clock).run()),
            *(asyncio.create_task(syncs.keep(url, poll=self.config.poll)) for url in self.config.app_urls),
        ]
        while not self._server.started:  # uvicorn tells by a flag only
            if self._tasks[0].done():
                await self._tasks[0]
            await asyncio.sleep(0.001)
        return self

    @property
    def calls_in_flight(self) -> int:
        """How many apps are being called."""
        return self._executor.calls_in_flight

    def hurry(self) -> None:
        """Wait no longer for calls in flight."""
        self._executor.hurry()

    async def __aexit__(self, *_: object) -> None:
        await self._executor.drain(self.config.drain_seconds)  # apps may still report what they did
        self._server.should_exit = True
        serving, *others = self._tasks
        for task in others:
            task.cancel()
        await self._executor.stop()
        await asyncio.gather(serving, *others, return_exceptions=True)
        await self.transport.close()
        self._listener.close()
        self._store.close()


class _Server(uvicorn.Server):
    """A uvicorn server that leaves the process's signals alone."""

    def install_signal_handlers(self) -> None:
        """None: whoever runs the engine decides when it stops."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """As above."""
        yield


def _server(app: ASGIApp) -> _Server:
    config = uvicorn.Config(
        app,
        lifespan="off",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=STOP_SECONDS,
        ws="websockets-sansio",
    )
    return _Server(config)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as err:
        listener.close()
        raise CannotListenError(host, port, err) from err
    return listener
