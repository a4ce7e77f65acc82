"""The warm process: everything heavy is imported, nothing runs, workers are forked from it.

Single-threaded and without an event loop, so that forking is safe. Where it is not (threads were started by
what was imported, or the system's libraries do not bear it), the process becomes the worker itself and the
supervisor keeps another one warm. Called by `dev.warm`; talks with `dev.workers` over a socket.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from flowctl_cli.dev.channel import Channel, Job

MESSAGE_BYTES = 1 << 20
MOST_SOCKETS = 8
ORPHAN_SECONDS = 10.0
PRELOADED = (
    "inngest",
    "uvicorn",
    "uvicorn.protocols.http.httptools_impl",
    "uvicorn.protocols.websockets.websockets_sansio_impl",
    "uvicorn.lifespan.on",
    "uvicorn.loops.auto",
    "dotenv",
    "httpcore",
    "flowctl.run",
    "flowctl.workflow",
    "flowctl.runners.dispatch",
    "flowctl.runners.local",
    "flowctl.server.app",
    "flowctl_cli.dev.app_worker",
)
# The first worker starts meanwhile.
PRELOADED_LATER = (
    "flowctl.engine.server",
    "flowctl_cli.engines.embedded",
    "flowctl_cli.dev.placeholder",
    "anyio._backends._asyncio",
    "httpcore._backends.anyio",
)


def main(fd: int) -> None:
    """Import, then serve requests for workers until the supervisor closes its end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.disable()
    _leave_out_command_line_of_httpx()
    for module in PRELOADED:
        importlib.import_module(module)
    _share_tls_context()
    gc.enable()
    gc.freeze()
    Forker(socket.socket(fileno=fd)).run()


@dataclass(slots=True)
class Forker:
    """Takes requests, forks, tells which workers ended and how."""

    control: socket.socket
    children: set[int] = field(default_factory=set[int])

    def run(self) -> None:
        """Until the supervisor is gone; then nothing that was forked stays."""
        woken, wake = os.pipe()
        for end in (woken, wake):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _only_wake)
        self._tell(forks=_may_fork())
        while True:
            ready, _, _ = select.select([self.control, woken], [], [])
            if woken in ready:
                os.read(woken, 1024)
                self._reap()
            if self.control in ready and not self._take_request():
                self._end_orphans()
                return

    def _take_request(self) -> bool:
        message, fds, _, _ = socket.recv_fds(self.control, MESSAGE_BYTES, MOST_SOCKETS)
        if not message:
            return False
        for fd in fds:
            os.set_inheritable(fd, False)
        spec = json.loads(message)
        if spec["fork"] and (pid := os.fork()):
            self.children.add(pid)
            for received in fds:
                os.close(received)
            self._tell(pid=pid, number=spec["number"])
            for module in PRELOADED_LATER:
                importlib.import_module(module)
            return True
        if not spec["fork"]:
            self._tell(pid=os.getpid(), number=spec["number"])
        return self._become(spec, fds)

    def _become(self, spec: dict[str, Any], fds: list[int]) -> NoReturn:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self.control.close()
        channel, *others = [socket.socket(fileno=fd) for fd in fds]
        work(Job(spec, Channel(channel), others))

    def _reap(self) -> None:
        for pid in list(self.children):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self.children.discard(pid)
                self._tell(ended=pid, code=os.waitstatus_to_exitcode(status))

    def _end_orphans(self) -> None:
        """Workers end by themselves when the supervisor is gone, except those that hang."""
        deadline = time.monotonic() + ORPHAN_SECONDS
        while self.children and time.monotonic() < deadline:
            time.sleep(0.02)
            self._reap()
        for pid in self.children:
            os.kill(pid, signal.SIGKILL)

    def _tell(self, **message: Any) -> None:
        try:
            self.control.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            return  # the supervisor is gone: the next read says so


def work(job: Job) -> NoReturn:
    """Be the worker of a role, to its end."""
    code = 1
    try:
        role = importlib.import_module(job.spec["role"])
        with asyncio.Runner(loop_factory=getattr(role, "loop_factory", None)) as runner:
            runner.run(role.serve(job))
        code = 0
    except BaseException as err:  # noqa: BLE001 - a worker reports whatever ends it
        from flowctl_cli.dev.report import report_of  # noqa: PLC0415 - imported before the fork

        job.channel.send(error=report_of(err, Path(job.spec["root"])).to_json())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _only_wake(number: int, frame: object) -> None:
    """The signal's byte in the pipe is what counts."""


def _may_fork() -> bool:
    threads = Path("/proc/self/task")
    count = len(list(threads.iterdir())) if threads.is_dir() else threading.active_count()
    return hasattr(os, "fork") and sys.platform != "darwin" and count == 1


def _leave_out_command_line_of_httpx() -> None:
    """Import httpx as where its optional command line is not installed: half of its import is that."""
    sys.modules["httpx._main"] = None  # type: ignore[assignment]
    importlib.import_module("httpx")
    del sys.modules["httpx._main"]


def _share_tls_context() -> None:
    """Have all HTTP clients of a worker use one TLS context, made before the fork.

    Making one parses every root certificate, which takes longer than all else that a reload does, and each
    client of the SDK makes two.
    """
    default: Any = importlib.import_module("httpx._transports.default")
    default.create_ssl_context = functools.cache(default.create_ssl_context)
    default.create_ssl_context(verify=True, cert=None, trust_env=True)


if __name__ == "__main__":
    # Under its own name, so that what workers import is this module and not a second copy of it.
    importlib.import_module("flowctl_cli.dev.zygote").main(int(sys.argv[1]))
