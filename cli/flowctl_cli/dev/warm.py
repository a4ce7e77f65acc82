"""Starting the warm process: the first thing that `flowctl dev` does, hence nothing heavy is imported here.

It imports what every worker needs while this process reads its options. Called by `flowctl_cli.__main__`
(early) and by `dev.workers`.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from dataclasses import dataclass

CLOSE_SECONDS = 5.0
_early: list[WarmProcess] = []


@dataclass(frozen=True, slots=True)
class WarmProcess:
    """A process that has imported everything heavy, and the socket over which it is asked for workers."""

    process: subprocess.Popen[bytes]
    control: socket.socket

    @classmethod
    def spawn(cls) -> WarmProcess:
        """Start it; it answers once it has imported."""
        ours, theirs = socket.socketpair()
        # -P: a file of the project must not stand in for a module that the worker imports.
        arguments = [sys.executable, "-P", "-m", "flowctl_cli.dev.zygote", str(theirs.fileno())]
        process = subprocess.Popen(arguments, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)  # noqa: S603 - our own module
        theirs.close()
        return cls(process, ours)

    def close(self) -> None:
        """Let it end: it does so when its socket closes."""
        with contextlib.suppress(OSError):
            self.control.shutdown(socket.SHUT_RDWR)  # whoever else holds the socket
        self.control.close()
        try:
            self.process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def start_early() -> None:
    """Start one before anything else is imported."""
    _early.append(WarmProcess.spawn())


def take() -> WarmProcess:
    """The one that was started early, or a new one."""
    return _early.pop() if _early else WarmProcess.spawn()


def discard() -> None:
    """End one that nobody took."""
    while _early:
        unused = _early.pop()
        unused.process.kill()
        unused.close()
