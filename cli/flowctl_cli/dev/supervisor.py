"""Owns the sockets, keeps a good worker serving, has the engine beside it, reloads on save.

A new worker takes over only once its app has answered; until then, and when the new code does not load, the
old one goes on. What the old one is doing it finishes. Called by `commands.dev`.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from flowctl.errors import EngineError, FlowctlError
from flowctl_cli.console import say, style
from flowctl_cli.dev import banner
from flowctl_cli.dev.engine import DevEngine
from flowctl_cli.dev.options import DevOptions
from flowctl_cli.dev.report import ErrorReport, status_of
from flowctl_cli.dev.serving import STOP_SECONDS, Backoff, Serving
from flowctl_cli.dev.sockets import Sockets
from flowctl_cli.dev.tls import Certificate, certificate_for
from flowctl_cli.dev.watch import Filter, changes, is_data
from flowctl_cli.dev.workers import Pool, WorkerFailedError
from flowctl_cli.dev_lock import DevLock
from flowctl_cli.engines.choice import Machine
from flowctl_cli.engines.detect import look_around
from flowctl_cli.project import find_project

ENGINE_PATIENCE_SECONDS = 3.0
REGISTER_PAUSES = (0.0, 0.3, 1.0, 3.0)


class AppFailedError(FlowctlError):
    """The app did not load; exits with the code of what is wrong."""

    def __init__(self, report: ErrorReport) -> None:
        super().__init__(report.to_text())
        setattr(self, "exit_code", report.exit_code)  # noqa: B010 - of this error, where it is a class's else


class Supervisor:
    """The parent of everything that `flowctl dev` runs."""

    def __init__(
        self, options: DevOptions, lock: DevLock, sockets: Sockets, engine: DevEngine, pool: Pool
    ) -> None:
        self.options, self.lock, self.sockets, self.engine, self.pool = options, lock, sockets, engine, pool
        self.began = time.monotonic()
        self.certificate: Certificate | None = None
        self.failure: ErrorReport | None = None
        self.stopping, self.impatient = asyncio.Event(), asyncio.Event()
        self._facts: dict[str, Any] = {}
        self._is_announced = False
        self._engine_run: asyncio.Task[None] | None = None
        self._warned: set[str] = set()
        self._saved = asyncio.Queue[list[Path]]()
        self._changing = asyncio.Lock()
        self._backoff = Backoff()
        self.serving = Serving(self._spawn, lambda: self._saved.put_nowait([]), self.stopping, self._backoff)
        self._tasks: set[asyncio.Task[None]] = set()
        self._fatal: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> int:
        """Serve until told to stop; answers the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            under_nohup = number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN
            if not under_nohup:
                loop.add_signal_handler(number, self._asked_to_stop, number)
        self.lock.write(url=self.sockets.inner_url, shown=self.sockets.url, engine=self.engine.url)
        loads = self._spawn(self._serve())
        stopping = asyncio.ensure_future(self.stopping.wait())
        try:
            await asyncio.wait({stopping, self._fatal}, return_when=asyncio.FIRST_COMPLETED)
            if self._fatal.done():
                self._fatal.result()
        finally:
            stopping.cancel()
            self.stopping.set()
            await _cancelled(loads)
            await self._shut_down()
        return self.failure.exit_code if self.failure and not self._facts else 0

    def _asked_to_stop(self, number: int) -> None:
        if number == signal.SIGINT and sys.stderr.isatty():
            say()  # after the terminal's ^C: what is told now, or the next prompt, has a line of its own
        if self.stopping.is_set():
            self.impatient.set()
        self.stopping.set()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something beside; what goes wrong there ends the server with its error."""

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and (err := task.exception()) and not self._fatal.done():
                self._fatal.set_exception(err)

        self._tasks.add(task := asyncio.create_task(work))
        task.add_done_callback(ended)
        return task

    async def _serve(self) -> None:
        if self.options.reload:
            self._spawn(self._watch())
        await self._load([])
        while not self.stopping.is_set():
            await self._load(await self._saved.get())

    async def _watch(self) -> None:
        """Collect changes from the start, so that none is missed while the first worker starts."""
        extra = [self.options.env_file.resolve()] if self.options.env_file else []
        async for changed in changes(Filter(self.options.project.root, extra), self.stopping):
            self._say_what_needs_a_restart(changed)
            self._saved.put_nowait(changed)

    def _say_what_needs_a_restart(self, changed: list[Path]) -> None:
        project = self.options.project
        if project.root / "pyproject.toml" not in changed:
            return
        with contextlib.suppress(FlowctlError):  # the worker reads it too, and says what is wrong
            now = find_project(project.root).settings
            keys = [
                key
                for key in now.keys() | project.settings.keys()
                if now.get(key) != project.settings.get(key)
            ]
            if fixed := sorted(set(keys) - {"app"}):
                say(
                    style(
                        f"{', '.join(fixed)} in pyproject.toml: takes effect when you start again.", "yellow"
                    )
                )

    async def _load(self, changed: list[Path]) -> None:
        """Load the app as it is on disk now; a save meanwhile begins again."""
        began = time.monotonic()
        loading = asyncio.create_task(self._generation())
        try:
            while more := await self._saved_before(loading):
                changed = [*changed, *more]
                await _cancelled(loading)
                loading = asyncio.create_task(self._generation())
            loading.result()
        except WorkerFailedError as err:
            await self._keep_last_good(err.report, changed)
        else:
            await self._loaded(changed, time.monotonic() - began)
        finally:
            await _cancelled(loading)

    async def _saved_before(self, loading: asyncio.Task[None]) -> list[Path]:
        """What is saved while a worker loads, or nothing once it has."""
        while not loading.done():
            saving = asyncio.create_task(self._saved.get())
            try:
                await asyncio.wait({loading, saving}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                saving.cancel()
            saved = saving.result() if saving.done() else []
            if loading.done() and saved:
                self._saved.put_nowait(saved)
            elif source := [file for file in saved if not is_data(file)]:
                return source
        return []

    async def _generation(self) -> None:
        """Start a worker, wait until its app has answered, have it take over."""
        async with self._changing:
            worker = await self.pool.start(self._app_spec(), self.sockets.for_worker(), self.serving.hear)
            try:
                await worker.until_loaded()
                if worker.facts["inngest"] and self._engine_run is None:
                    self._engine_run = self._spawn(self._run_engine())
                await worker.until_ready()
            except BaseException:
                worker.kill()
                self._spawn(worker.end(within=STOP_SECONDS))
                raise
            self._facts = worker.facts
            await self.serving.take_over(worker)

    async def _loaded(self, changed: list[Path], seconds: float) -> None:
        self.failure = None
        await self._register()
        self._tell_status(changed, seconds)
        self._warn_of_other_engines()
        if changed:
            say(banner.reloaded(changed, seconds))
        if not self._is_announced:
            self._announce()

    def _announce(self) -> None:
        self._is_announced = True
        banner.announce(
            self._facts,
            self.sockets,
            self.engine,
            authority=self.certificate.authority if self.certificate else None,
            debug_port=self.options.debug_port if self.options.debug else None,
            seconds=time.monotonic() - self.began,
        )
        if self.options.open:
            banner.open_browser(self.sockets.url)

    async def _keep_last_good(self, report: ErrorReport, changed: list[Path]) -> None:
        """Show what is wrong, once; who asks is answered by the last good worker, or told the error."""
        if not self.options.reload or not (report.waits or self._facts):
            raise AppFailedError(report)
        repeated, self.failure = report.is_same_as(self.failure), report
        say(banner.failed(report, changed, is_served=bool(self._facts), repeated=repeated))
        if not self._facts:
            async with self._changing:
                await self._put_placeholder(report)
        self._tell_status(changed, None)

    async def _put_placeholder(self, report: ErrorReport) -> None:
        spec = {
            "role": "flowctl_cli.dev.placeholder",
            "root": str(self.options.project.root),
            "status": status_of(report),
            "tls": self.certificate and self.certificate.files,
        }
        worker = await self.pool.start(spec, self.sockets.for_worker())
        await worker.until_ready()
        await self.serving.take_over(worker)

    async def _run_engine(self) -> None:
        """Start the engine; another one when it dies."""
        while not self.stopping.is_set():
            await self.engine.start()
            await self._register()
            if self.engine.worker is None:
                return
            await self.engine.worker.gone.wait()
            self.engine.up.clear()
            if not self.stopping.is_set():
                say(style(f"The engine died{self.engine.worker.how_it_ended}; starting it again.", "yellow"))
                await self._backoff.wait()

    async def _register(self) -> None:
        """Tell the engine what the app serves now; an engine that is still starting is told later."""
        if not self._facts.get("inngest"):
            return
        try:
            async with asyncio.timeout(ENGINE_PATIENCE_SECONDS):
                await self.engine.up.wait()
        except TimeoutError:
            return
        failure = await self._registered()
        if failure is not None:
            say(style(str(failure), "yellow"))

    async def _registered(self) -> EngineError | None:
        """Try some times, as an engine or a worker may just have been replaced; answers the last failure."""
        failure = None
        for pause in REGISTER_PAUSES:
            await asyncio.sleep(pause)
            try:
                await self.engine.register(self._facts["registration"])
            except EngineError as err:
                failure = err
            else:
                return None
        return failure

    def _warn_of_other_engines(self) -> None:
        for url in banner.other_engines(self._facts.get("engines", []), self.engine.url) - self._warned:
            self._warned.add(url)
            say(style(banner.points_elsewhere(url, self.engine.url), "yellow"))

    def _tell_status(self, changed: list[Path], seconds: float | None) -> None:
        if self.serving.worker is None:
            return
        facts = {
            "app": self._facts.get("app"),
            "source": self._facts.get("source"),
            "engine": {
                "kind": self.engine.choice.kind,
                "url": self.engine.url,
                "why": self.engine.choice.why,
            },
            "changed": [file.name for file in changed],
            "reloadMs": round(seconds * 1000) if seconds is not None else None,
            "at": round(time.time() * 1000),
        }
        self.serving.worker.tell(do="status", status=status_of(self.failure, **facts))

    def _app_spec(self) -> dict[str, Any]:
        options = self.options
        return {
            "role": "flowctl_cli.dev.app_worker",
            "root": str(options.project.root),
            "app": options.app,
            "env_file": str(options.env_file.resolve()) if options.env_file else None,
            "log_level": options.log_level,
            "tls": self.certificate and self.certificate.files,
            "debug_port": options.debug_port if options.debug else None,
            "environment": {
                "INNGEST_DEV": self.engine.url,
                "FLOWCTL_ENV": "development",
                "FLOWCTL_HOST": options.host,
            },
        }

    async def _shut_down(self) -> None:
        """Once told: finish what is under way. Told twice: end it."""
        ending = asyncio.ensure_future(self._end_gently())
        impatient = asyncio.ensure_future(self.impatient.wait())
        await asyncio.wait({ending, impatient}, return_when=asyncio.FIRST_COMPLETED)
        if not ending.done():
            for worker in self.serving.workers:
                worker.kill()
            await self.engine.stop(now=True)
            ending.cancel()
        impatient.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, ending, return_exceptions=True)

    async def _end_gently(self) -> None:
        async with self._changing:
            await self.serving.end()
        if self._engine_run is not None:
            await _cancelled(self._engine_run)
        await self.engine.stop()


async def _cancelled(task: asyncio.Task[None]) -> None:
    """Cancel it, and wait until it has cleaned up."""
    task.cancel()
    await asyncio.wait({task})


async def serve_dev(options: DevOptions) -> int:
    """Serve until SIGINT, SIGTERM or SIGHUP; answers the exit code. Raises FlowctlError."""
    lock = DevLock.take(options.project)
    pool = Pool()
    try:
        machine = look_around() if options.engine in {"auto", "docker", "binary"} else Machine(None, "", None)
        uses_docker = options.engine in {"auto", "docker"} and machine.docker is not None
        bridge = machine.docker.bridge if uses_docker and machine.docker else None
        sockets = Sockets.open(options.host, options.port, tls=options.https, bridge=bridge)
        with contextlib.closing(sockets):
            engine = DevEngine.prepare(
                options.engine,
                machine=machine,
                port=options.engine_port,
                image=options.engine_image,
                root=options.project.root,
                state=options.project.state,
                sockets=sockets,
                pool=pool,
                hears=banner.EngineLog().hear,
            )
            supervisor = Supervisor(options, lock, sockets, engine, pool)
            if options.https:
                supervisor.certificate = certificate_for(options.host, options.project.state)
            return await supervisor.run()
    finally:
        pool.close()
        lock.release()
