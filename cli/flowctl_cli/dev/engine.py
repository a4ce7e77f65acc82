"""The engine beside the app: started when an app needs it, told about functions, replaced when it dies."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowctl.errors import EngineError
from flowctl_cli.dev.sockets import LOOPBACK, Sockets, listen
from flowctl_cli.dev.workers import Pool, Worker, WorkerFailedError
from flowctl_cli.engines.choice import Choice, Machine, choose
from flowctl_cli.engines.health import call, until_healthy

ANSWER_SECONDS = 5.0
SYNC_SECONDS = 10.0
END_SECONDS = 5.0
DEFAULT_IMAGE = "inngest/inngest"


@dataclass(slots=True)
class DevEngine:
    """The one engine of a dev server."""

    asked: str
    machine: Machine
    choice: Choice
    url: str
    port: int
    image: str
    root: Path
    database: Path
    sockets: Sockets
    pool: Pool
    hears: Callable[[dict[str, Any]], None]
    listener: socket.socket | None = None
    worker: Worker | None = None
    up: asyncio.Event = field(default_factory=asyncio.Event)
    _registered: str | None = None

    @classmethod
    def prepare(
        cls,
        asked: str,
        *,
        machine: Machine,
        port: int,
        image: str,
        root: Path,
        state: Path,
        sockets: Sockets,
        pool: Pool,
        hears: Callable[[dict[str, Any]], None],
    ) -> DevEngine:
        """Choose it, so that its URL is known; raises EngineError: it is not there, or its port is taken."""
        choice = choose(asked, machine)
        # A container that a dead dev server left may hold the port; Docker tells whether others do.
        is_dockers = choice.kind == "docker" and port != 0
        listener = None if choice.url or is_dockers else listen(LOOPBACK, port, "--engine-port")
        port = int(listener.getsockname()[1]) if listener else port
        url = choice.url or f"http://{LOOPBACK}:{port}"
        if choice.kind != "embedded" and listener is not None:
            listener.close()  # it was free: the engine binds it itself
            listener = None
        return cls(
            asked,
            machine,
            choice,
            url,
            port,
            image,
            root,
            state / "engine.db",
            sockets,
            pool,
            hears,
            listener,
        )

    @property
    def app_url(self) -> str:
        """Where the engine reaches the app."""
        if self.choice.kind == "docker":
            return f"http://host.docker.internal:{self.sockets.port_for_containers}"
        return self.sockets.inner_url

    async def start(self) -> None:
        """Start it, or wait for the one that runs at a URL; raises EngineError."""
        if self.choice.kind == "url":
            if not await until_healthy(self.url, within=ANSWER_SECONDS):
                raise EngineError(
                    f"No Inngest answers at {self.url}: start it first, "
                    "or leave --engine out to have one started."
                )
        else:
            await self._start_worker()
        self._registered = None
        self.up.set()

    async def stop(self, *, now: bool = False) -> None:
        """End what was started here."""
        self.up.clear()
        if self.worker is not None:
            if now:
                self.worker.kill()
            await self.worker.finish(seconds=0, successor=False)
            await self.worker.end(within=END_SECONDS)
        if self.listener is not None:
            self.listener.close()

    async def register(self, registration: str) -> None:
        """Have the app tell the engine what it serves, unless the engine knows; raises EngineError."""
        if registration == self._registered:
            return
        try:
            status, body = await call(
                "PUT",
                f"{self.sockets.inner_url}/api/inngest",
                headers={"host": self.app_url.removeprefix("http://")},
                within=SYNC_SECONDS,
            )
        except OSError as err:
            raise EngineError(
                f"The engine at {self.url} could not be told about the functions: {err}"
            ) from err
        if status != 200:
            told = body.decode(errors="replace")
            raise EngineError(f"The engine at {self.url} did not take the functions: {told}")
        self._registered = registration

    async def _start_worker(self) -> None:
        try:
            await self._run()
        except WorkerFailedError as err:
            if self.asked != "auto" or self.choice.kind == "embedded":
                raise EngineError(str(err)) from err
            without = Machine(None, "", self.machine.binary if self.choice.kind == "docker" else None)
            self.choice = choose("auto", without)
            self.hears({"line": f"{err}", "instead": self.choice.why})
            await self._start_worker()

    async def _run(self) -> None:
        if self.choice.kind == "embedded" and self.listener is None:
            self.listener = listen(LOOPBACK, self.port, "--engine-port")
        common = {"role": f"flowctl_cli.engines.{self.choice.kind}", "root": str(self.root)}
        worker = await self.pool.start(
            common | self._settings(), [self.listener] if self.listener else [], self.hears
        )
        self.worker = worker
        try:
            await worker.until_ready(within=None)
        except BaseException:
            self.worker = None
            await worker.finish(seconds=0, successor=False)
            await worker.end(within=END_SECONDS)
            raise

    def _settings(self) -> dict[str, Any]:
        reached = {"url": self.url, "port": self.port, "app_url": f"{self.app_url}/api/inngest"}
        match self.choice.kind:
            case "docker" if self.machine.docker is not None:
                return reached | {"docker": self.machine.docker.url, "image": self.image}
            case "binary":
                return reached | {"binary": self.machine.binary}
            case _:
                return {"db": str(self.database), "studio_url": self.sockets.url}
