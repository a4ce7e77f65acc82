"""A terminal for commands under test: what they draw can be waited for, and answered."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import termios
import time
from pathlib import Path

from tests.cli.conftest import FLOWCTL

SECONDS = 60


class Terminal:
    """A command that runs on a terminal of its own; stdout too, unless `stdout` is a file."""

    def __init__(self, *arguments: str, cwd: Path, stdout: int | None = None, columns: int = 80) -> None:
        self.ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, columns))
        own = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
        environment = {**own, "TERM": "xterm-256color"}
        self.process = subprocess.Popen(
            [*FLOWCTL, *arguments],
            cwd=cwd,
            stdin=theirs,
            stdout=stdout or theirs,
            stderr=theirs,
            env=environment,
            start_new_session=True,
        )
        os.close(theirs)
        self.shown = ""

    @property
    def plain(self) -> str:
        """What has been shown, without colours and movements."""
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.shown)

    def wait_for(self, text: str) -> None:
        """Read until the text has been drawn."""
        deadline = time.monotonic() + SECONDS
        while text not in self.shown:
            assert self._read(deadline), f"{text!r} was not drawn:\n{self.shown}"

    def answer(self, question: str, reply: str) -> None:
        """Wait for a question and type the reply."""
        self.wait_for(question)
        self.shown = ""
        os.write(self.ours, f"{reply}\n".encode())

    def interrupt(self, question: str) -> None:
        """Ctrl-C at a question: once the process sleeps, for what draws a question is not yet reading."""
        self.wait_for(question)
        status = Path(f"/proc/{self.process.pid}/stat")
        while status.read_text().rpartition(")")[2].split()[0] != "S":
            assert self.process.poll() is None
        self.process.send_signal(signal.SIGINT)

    def end(self) -> int:
        """Read to the end; the exit code."""
        deadline = time.monotonic() + SECONDS
        while self._read(deadline):
            pass
        os.close(self.ours)
        return self.process.wait(SECONDS)

    def _read(self, deadline: float) -> bool:
        readable, _, _ = select.select([self.ours], [], [], max(0, deadline - time.monotonic()))
        if not readable:
            self.process.kill()
            return False
        try:
            data = os.read(self.ours, 65536)
        except OSError:  # Linux says so when the other end is closed
            return False
        self.shown += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)
