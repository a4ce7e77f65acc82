"""Workers as the supervisor sees them: forked by the zygote, told to stop, watched until they are gone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

from flowctl.errors import FlowctlError

START_SECONDS = 60.0
KILL_AFTER_SECONDS = 2.0


class WorkerFailedError(FlowctlError):
    """A worker did not become ready; the text is what it reported."""


@dataclass(slots=True)
class Worker:
    """One forked process."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    grace: float
    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    reported: str = ""
    released: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    _listening: asyncio.Task[None] | None = None

    async def ready(self) -> None:
        """Wait until it serves; raises WorkerFailedError."""
        try:
            line = await asyncio.wait_for(self.reader.readline(), START_SECONDS)
        except TimeoutError as err:
            raise WorkerFailedError(f"The app did not start within {START_SECONDS:.0f} seconds.") from err
        self.facts = json.loads(line) if line else {"error": "The worker ended while it started."}
        if "error" in self.facts:
            raise WorkerFailedError(self.facts["error"])
        self._listening = asyncio.create_task(self._listen())

    async def release(self) -> None:
        """Have it accept no further connection, and finish what it does."""
        with contextlib.suppress(ConnectionError):
            self.writer.write(b"s")
            await self.writer.drain()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.released.wait(), KILL_AFTER_SECONDS)

    async def stop(self, *, now: bool = False) -> None:
        """Let it finish what it does, for some seconds; or end it now."""
        if self._listening is not None:
            if now:
                self._kill()
            await self.release()
            try:
                await asyncio.wait_for(self.gone.wait(), self.grace + KILL_AFTER_SECONDS)
            except TimeoutError:
                self._kill()
        self.writer.close()

    async def _listen(self) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await self.reader.readline():
                self.reported = str(json.loads(line).get("error", ""))
                self.released.set()
        self.released.set()
        self.gone.set()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.facts["pid"], signal.SIGKILL)


@dataclass(slots=True)
class Zygote:
    """The warm process; ends when its socket closes."""

    process: subprocess.Popen[bytes]
    control: socket.socket
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @classmethod
    def spawn(cls) -> Zygote:
        """Start it; it needs a moment to import, and answers then."""
        ours, theirs = socket.socketpair()
        arguments = [sys.executable, "-m", "flowctl_cli.zygote", str(theirs.fileno())]
        process = subprocess.Popen(arguments, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)  # noqa: S603 - our own module
        theirs.close()
        ours.setblocking(False)
        return cls(process, ours)

    async def fork(self, spec: dict[str, Any], listener: socket.socket, *, grace: float) -> Worker:
        """A new worker that serves on a bound socket."""
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        async with self._turn:
            socket.send_fds(self.control, [json.dumps(spec).encode()], [theirs.fileno(), listener.fileno()])
            theirs.close()
            if not await asyncio.wait_for(loop.sock_recv(self.control, 1), START_SECONDS):
                raise WorkerFailedError("The process that forks workers has ended.")
        reader, writer = await asyncio.open_connection(sock=ours)
        return Worker(reader, writer, grace)

    def close(self) -> None:
        """Let it end; what it forked has been stopped before."""
        self.control.close()
        try:
            self.process.wait(KILL_AFTER_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
