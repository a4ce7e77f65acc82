"""`flowctl dev`: owns the sockets, keeps a good worker serving, starts the engine, reloads on save.

A new worker takes over only once it serves; until then, and when the new code does not load, the old one
goes on. Both accept on the same socket, so no request is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowctl.errors import EngineError
from flowctl_cli.console import say, style
from flowctl_cli.dev_lock import DevLock
from flowctl_cli.project import Project, ProjectError
from flowctl_cli.workers import Worker, WorkerFailedError, Zygote

GRACE_SECONDS = 3
BACKOFF_SECONDS = (0.0, 0.5, 1.0, 2.0, 5.0)
STABLE_SECONDS = 10.0
HEALTH_SECONDS = 0.05
WATCHED = {".py", ".toml", ".json", ".yaml", ".yml"}
IGNORED = {"node_modules", "__pycache__", "venv", "dist", "build"}


@dataclass(frozen=True, slots=True)
class DevOptions:
    """What `flowctl dev` was asked for."""

    project: Project
    host: str = "127.0.0.1"
    port: int = 4111
    engine: str = "auto"
    engine_port: int = 8288
    reload: bool = True
    app: str | None = None
    env_file: Path | None = None


async def serve_dev(options: DevOptions) -> int:
    """Serve until SIGINT or SIGTERM; answers the exit code."""
    lock = DevLock.take(options.project)
    try:
        supervisor = Supervisor(options, lock)
        return await supervisor.run()
    finally:
        lock.release()


class Supervisor:
    """The parent of everything that `flowctl dev` runs."""

    def __init__(self, options: DevOptions, lock: DevLock) -> None:
        self.options, self.lock = options, lock
        self.began = time.monotonic()
        self.listener = listen(options.host, options.port, "--port")
        self.url = url_of(self.listener)
        self.engine_listener: socket.socket | None = None
        if options.engine in {"auto", "embedded"}:
            try:
                self.engine_listener = listen("127.0.0.1", options.engine_port, "--engine-port")
            except EngineError:
                self.listener.close()
                raise
            self.engine_url = url_of(self.engine_listener)
        else:
            self.engine_url = options.engine.rstrip("/")
        self.zygote = Zygote.spawn()
        self.worker: Worker | None = None
        self.engine: Worker | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._changing = asyncio.Lock()
        self.stop = asyncio.Event()
        self.impatient = asyncio.Event()

    async def run(self) -> int:
        """Start, reload, stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._asked_to_stop)
        self.lock.write(url=self.url, engine=self.engine_url)
        stopping = asyncio.create_task(self.stop.wait())
        try:
            serving = asyncio.create_task(self._serve())
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            serving.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await serving
            return 0
        finally:
            stopping.cancel()
            await self._shut_down()

    def _asked_to_stop(self) -> None:
        if self.stop.is_set():
            self.impatient.set()
        self.stop.set()

    async def _serve(self) -> None:
        changes = asyncio.Queue[list[Path]]()
        watching = asyncio.create_task(self._watch(changes))
        try:
            await self._first_generation()
            watching_workers = asyncio.create_task(self._keep_alive())
            try:
                while True:
                    await self._reload(await changes.get())
            finally:
                watching_workers.cancel()
        finally:
            watching.cancel()

    async def _first_generation(self) -> None:
        try:
            await self._start_generation()
            self._announce()
        except WorkerFailedError as err:
            if not self.options.reload:
                raise ProjectError(str(err)) from err
            say(f"{err}\n{style('The app could not be loaded; waiting for a change.', 'yellow')}")

    async def _watch(self, changes: asyncio.Queue[list[Path]]) -> None:
        """Collect changes from now on, so that none is missed while the first worker starts."""
        if not self.options.reload:
            return
        import watchfiles  # noqa: PLC0415 - not needed with --no-reload

        root = self.options.project.root
        watch = watchfiles.awatch(root, watch_filter=is_watched(root), step=10, debounce=50, recursive=True)
        async for changed in watch:
            changes.put_nowait(sorted({Path(path) for _, path in changed}))

    async def _reload(self, changed: list[Path]) -> None:
        began, old = time.monotonic(), self.worker
        names = ", ".join(path.name for path in changed[:3])
        try:
            await self._start_generation()
        except WorkerFailedError as err:
            kept = "the last good version goes on serving" if old else "waiting for a change"
            say(f"{err}\n{style(f'{names} could not be loaded; {kept}.', 'yellow')}")
            return
        say(style(f"reloaded {names} in {(time.monotonic() - began) * 1000:.0f} ms", "dim"))
        if old is None:
            self._announce()

    async def _start_generation(self) -> None:
        async with self._changing:
            await self._generation()

    async def _generation(self) -> None:
        """Fork a worker, wait until it serves, then let the old one end."""
        spec: dict[str, Any] = {
            "role": "app",
            "root": str(self.options.project.root),
            "app": self.options.app,
            "env_file": str(self.options.env_file) if self.options.env_file else None,
            "grace": GRACE_SECONDS,
            "environment": {
                "INNGEST_DEV": self.engine_url,
                "FLOWCTL_ENV": "development",
                "FLOWCTL_HOST": self.options.host,
            },
        }
        worker = await self.zygote.fork(spec, self.listener, grace=GRACE_SECONDS)
        try:
            await worker.ready()
        except BaseException:
            await worker.stop()
            raise
        old, self.worker = self.worker, worker
        if worker.facts["inngest"]:
            await self._start_engine()
        if old is not None:
            await old.release()
            self._ending.add(ending := asyncio.create_task(old.stop()))
            ending.add_done_callback(self._ending.discard)
        if worker.facts["inngest"]:
            await self._sync()

    async def _start_engine(self) -> None:
        if self.engine_listener is None or self.engine is not None:
            return
        database = self.options.project.state / "engine.db"
        spec = {"role": "engine", "db": str(database), "studio_url": self.url}
        self.engine = await self.zygote.fork(spec, self.engine_listener, grace=1)
        await self.engine.ready()

    async def _sync(self) -> None:
        """Have the app register what it serves with the engine."""
        from flowctl.engine.transport import Transport  # noqa: PLC0415 - apps without Inngest need none

        transport = Transport()
        try:
            async with asyncio.timeout(10):
                answer = await transport.request("PUT", f"{self.url}/api/inngest", headers={})
            if answer.status != 200:
                say(f"The engine at {self.engine_url} did not take the functions: {answer.body.decode()}")
        except (OSError, TimeoutError) as err:
            say(f"The engine at {self.engine_url} could not be told about the functions: {err}")
        finally:
            await transport.close()

    async def _keep_alive(self) -> None:
        """Replace a worker or an engine that died by itself, more slowly when they keep dying."""
        failures, since = 0, time.monotonic()
        while True:
            await asyncio.sleep(HEALTH_SECONDS)
            died = [w for w in (self.worker, self.engine) if w is not None and w.gone.is_set()]
            if not died:
                continue
            failures = 0 if time.monotonic() - since > STABLE_SECONDS else failures + 1
            since = time.monotonic()
            await asyncio.sleep(BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS) - 1)])
            await self._replace(died)

    async def _replace(self, died: list[Worker]) -> None:
        async with self._changing:
            try:
                if self.engine in died:
                    say(style("The engine died; starting it again.", "yellow"))
                    self.engine = None
                    await self._start_engine()
                if self.worker in died:
                    say(style("The worker died; starting another one.", "yellow"))
                    await self._generation()
            except WorkerFailedError as err:
                say(str(err))

    def _announce(self) -> None:
        facts = self.worker.facts if self.worker else {}
        say(f"{style('flowctl dev', 'bold')}  app {facts.get('app')} (from {facts.get('source')})")
        for kind in ("workflows", "functions"):
            if facts.get(kind):
                say(f"  {kind:<10} {', '.join(facts[kind])}")
        say(f"  {'server':<10} {self.url}")
        if not facts.get("inngest"):
            say(f"  {'engine':<10} none: the app has no Inngest client, its workflows run in the server")
        else:
            say(f"  {'engine':<10} {self.engine_url} ({self._engine_reason()})")
        say(style(f"  ready in {time.monotonic() - self.began:.2f} s; Ctrl-C stops", "dim"))

    def _engine_reason(self) -> str:
        return "given by --engine" if self.engine_listener is None else "embedded, kept in .flowctl/engine.db"

    async def _shut_down(self) -> None:
        workers = [worker for worker in (self.worker, self.engine) if worker is not None]
        patient = asyncio.gather(*(worker.stop() for worker in workers), *self._ending)
        impatient = asyncio.create_task(self.impatient.wait())
        await asyncio.wait({patient, impatient}, return_when=asyncio.FIRST_COMPLETED)
        if not patient.done():
            await asyncio.gather(*(worker.stop(now=True) for worker in workers))
        impatient.cancel()
        self.zygote.close()
        self.listener.close()
        if self.engine_listener is not None:
            self.engine_listener.close()


def listen(host: str, port: int, option: str) -> socket.socket:
    """A bound socket; raises EngineError (exit code 4) when another program has the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except OSError as err:
        listener.close()
        raise EngineError(
            f"Cannot listen on {host}:{port}: {os.strerror(err.errno or 0)}. "
            f"Stop the other program, or choose another port with {option}."
        ) from err
    return listener


def url_of(listener: socket.socket) -> str:
    """Where a listening socket is reached on this machine."""
    address = listener.getsockname()
    host, port = str(address[0]), int(address[1])
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def is_watched(root: Path) -> Any:
    """Which changes reload: source and settings, not what tools and runs write."""

    def watched(_: Any, path: str) -> bool:
        parts = Path(path).relative_to(root).parts
        name = parts[-1]
        if any(part in IGNORED or part.startswith(".") for part in parts[:-1]):
            return False
        return (Path(name).suffix in WATCHED and not name.startswith(".")) or name.startswith(".env")

    return watched
