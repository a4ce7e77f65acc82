"""Workers as the supervisor sees them: started from the warm process, told to end, watched to their end."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from flowctl.errors import FlowctlError
from flowctl_cli.dev.report import ErrorReport
from flowctl_cli.dev.warm import WarmProcess, take

START_SECONDS = 60.0
RELEASE_SECONDS = 2.0
CODE_SECONDS = 0.3
MESSAGE_BYTES = 1 << 20
_requests = itertools.count()


class WorkerFailedError(FlowctlError):
    """A worker did not become ready: what it reported."""

    def __init__(self, report: ErrorReport) -> None:
        self.report = report
        super().__init__(report.to_text())


@dataclass(slots=True)
class Worker:
    """One worker process."""

    pid: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    hears: Callable[[dict[str, Any]], None]
    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    report: ErrorReport | None = None
    requests: int = 0
    steps: int = 0
    place: str = ""
    ended_with: int | None = None
    loaded: asyncio.Event = field(default_factory=asyncio.Event)
    is_ready: bool = False
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    released: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    _coded: asyncio.Event = field(default_factory=asyncio.Event)
    _listening: asyncio.Task[None] | None = None

    def ended(self, code: int) -> None:
        """Note how it ended."""
        self.ended_with = code
        self._coded.set()

    def listen(self) -> None:
        """Take its messages from now on."""
        self._listening = asyncio.create_task(self._listen())

    async def until_loaded(self) -> None:
        """Wait until the app is imported; raises WorkerFailedError."""
        await self._until(self.loaded, lambda: bool(self.facts), START_SECONDS)

    async def until_ready(self, *, within: float | None = START_SECONDS) -> None:
        """Wait until it serves; raises WorkerFailedError."""
        await self._until(self.ready, lambda: self.is_ready, within)

    def tell(self, **command: Any) -> None:
        """Send it a command; one that is gone hears nothing."""
        if not self.writer.is_closing():
            self.writer.write(json.dumps(command).encode() + b"\n")

    async def finish(self, *, seconds: float, successor: bool) -> None:
        """Have it take nothing new; it ends when what it does is done, or after these seconds."""
        self.tell(do="finish", seconds=seconds, successor=successor)
        await self.until_released()

    async def until_released(self) -> None:
        """Wait until it takes nothing new; some seconds at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RELEASE_SECONDS):
                await self.released.wait()

    async def end(self, *, within: float) -> None:
        """Wait until it is gone, and kill it when that takes too long."""
        try:
            async with asyncio.timeout(within):
                await self.gone.wait()
        except TimeoutError:
            self.kill()
            await self.gone.wait()
        finally:
            self.writer.close()

    def kill(self) -> None:
        """End it at once."""
        _kill(self.pid)

    async def _until(self, event: asyncio.Event, reached: Callable[[], bool], within: float | None) -> None:
        try:
            async with asyncio.timeout(within):
                await event.wait()
        except TimeoutError as err:
            told = f"The app did not start within {within:.0f} seconds{self.where}."
            raise WorkerFailedError(_told(told)) from err
        if not reached():
            ended = f"The worker ended while it started{self.how_it_ended}."
            raise WorkerFailedError(self.report or _told(ended))

    @property
    def unfinished(self) -> str:
        """What it had under way when it was told to take nothing new, in words; nothing when it is gone."""
        if self.gone.is_set():
            return ""
        counts = {"request": self.requests, "step": self.steps}
        return " and ".join(f"{n} {name}{'s' * (n > 1)}" for name, n in counts.items() if n)

    @property
    def where(self) -> str:
        """Where its import was last seen, in words."""
        return f": its import is at {self.place}" if self.place else ""

    @property
    def how_it_ended(self) -> str:
        """In words, where it is known."""
        match self.ended_with:
            case None:
                return ""
            case code if code < 0:
                return f" (killed by {signal.Signals(-code).name})"
            case code:
                return f" (exit code {code})"

    async def _listen(self) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await self.reader.readline():
                self._hear(json.loads(line))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CODE_SECONDS):
                await self._coded.wait()
        for event in (self.gone, self.loaded, self.ready, self.released):
            event.set()

    def _hear(self, message: dict[str, Any]) -> None:
        if "loaded" in message:
            self.facts = message["loaded"] or {"app": None}
            self.loaded.set()
        elif "ready" in message:
            self.is_ready = True
            self.ready.set()
        elif "released" in message:
            self.requests, self.steps = message.get("requests", 0), message.get("steps", 0)
            self.released.set()
        elif "error" in message:
            self.report = ErrorReport.from_json(message["error"])
        else:
            self.place = message.get("slow", self.place)
            self.hears(message)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _told(text: str) -> ErrorReport:
    return ErrorReport("WorkerFailed", text)


@dataclass(slots=True)
class Source:
    """A warm process that can be asked for workers: it forks them, or becomes one."""

    warm: WarmProcess
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    forks: bool
    asked: dict[int, asyncio.Future[int | None]] = field(
        default_factory=dict[int, "asyncio.Future[int | None]"]
    )
    workers: dict[int, Worker] = field(default_factory=dict[int, Worker])

    @classmethod
    async def of(cls, warm: WarmProcess) -> Source:
        """Wait until it has imported; raises WorkerFailedError."""
        line = warm.control.dup()
        line.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=line)
        async with asyncio.timeout(START_SECONDS):
            hello = await reader.readline()
        if not hello:
            writer.close()
            warm.close()
            raise WorkerFailedError(_told("The process that starts workers could not start; see above."))
        return cls(warm, reader, writer, json.loads(hello)["forks"])

    async def ask(self, spec: dict[str, Any], sockets: Sequence[socket.socket]) -> int | None:
        """The pid of a new worker, or None when the warm process is gone."""
        number = next(_requests)
        message = json.dumps(spec | {"fork": self.forks, "number": number}).encode()
        try:
            socket.send_fds(self.warm.control, [message], [sock.fileno() for sock in sockets])
        except OSError:
            return None
        self.asked[number] = answer = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(START_SECONDS):
                return await answer
        finally:
            del self.asked[number]

    async def hear(self) -> None:
        """Take what it tells: the workers it forked, and how they ended."""
        with contextlib.closing(self.writer), contextlib.suppress(ConnectionError):
            while line := await self.reader.readline():
                message = json.loads(line)
                if "pid" in message:
                    self._answer(message["number"], message["pid"])
                elif worker := self.workers.pop(message["ended"], None):
                    worker.ended(message["code"])
        for number in self.asked:
            self._answer(number, None)
        if not self.forks:
            code = await asyncio.to_thread(self.warm.process.wait)
            for worker in self.workers.values():
                worker.ended(code)

    def _answer(self, number: int, pid: int | None) -> None:
        """Tell who asked; a worker that nobody waits for any more is of no use."""
        answer = self.asked.get(number)
        if answer is not None and not answer.done():
            answer.set_result(pid)
        elif pid is not None:
            _kill(pid)


@dataclass(slots=True)
class Pool:
    """The workers and where they come from; a warm process that is gone is replaced."""

    _source: Source | None = None
    _next: WarmProcess | None = None
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _hearing: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    async def start(
        self,
        spec: dict[str, Any],
        sockets: Sequence[socket.socket],
        hears: Callable[[dict[str, Any]], None] = lambda _: None,
    ) -> Worker:
        """A new worker for a role, with these sockets; raises WorkerFailedError."""
        ours, theirs = socket.socketpair()
        with contextlib.closing(theirs):
            async with self._turn:
                source, pid = await self._ask(spec, [theirs, *sockets])
        try:
            reader, writer = await asyncio.open_connection(sock=ours, limit=MESSAGE_BYTES)
        except asyncio.CancelledError:
            _kill(pid)
            raise
        worker = Worker(pid, reader, writer, hears)
        source.workers[pid] = worker
        worker.listen()
        return worker

    def close(self) -> None:
        """Let the warm process end; what it made was ended before."""
        for hearing in self._hearing:
            hearing.cancel()
        for warm in (self._source.warm if self._source else None, self._next):
            if warm is not None:
                warm.close()

    async def _ask(self, spec: dict[str, Any], sockets: Sequence[socket.socket]) -> tuple[Source, int]:
        """Ask; once more when the warm process turns out to be gone."""
        for _ in range(2):
            source = self._source or await self._renew()
            pid = await source.ask(spec, sockets)
            if pid is None or not source.forks:
                self._source = None
            if not source.forks:
                self._next = WarmProcess.spawn()
            if pid is not None:
                return source, pid
        raise WorkerFailedError(_told("The process that starts workers has ended."))

    async def _renew(self) -> Source:
        warm, self._next = self._next or take(), None
        self._source = await Source.of(warm)
        self._hearing.add(hearing := asyncio.create_task(self._source.hear()))
        hearing.add_done_callback(self._hearing.discard)
        return self._source
