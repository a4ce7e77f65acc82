"""Projects made by `flowctl create`, and dev servers that serve them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.cli import warm

FLOWCTL = [sys.executable, "-m", "flowctl"]
START_SECONDS = 60

# Jobs in a shell's background ignore Ctrl-C, and so would what is started here.
signal.signal(signal.SIGINT, signal.default_int_handler)


def flowctl(*arguments: str, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return warm.run(list(arguments), cwd=cwd, **options)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The counter project, as users get it."""
    made = flowctl("create", "my-counter", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    return tmp_path / "my-counter"


@dataclass
class Dev:
    """A running `flowctl dev`; its lines can be waited for."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list[str])
    came: threading.Condition = field(default_factory=threading.Condition)

    def collect(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self.came:
                self.lines.append(line)
                self.came.notify_all()

    def wait_for(self, text: str, *, after: int = 0) -> int:
        """Wait for a line that contains the text; answers how many lines there are then."""
        with self.came:
            shown = self.came.wait_for(
                lambda: any(text in line for line in self.lines[after:]), timeout=START_SECONDS
            )
            assert shown, f"{text!r} did not come:\n{''.join(self.lines)}"
            return len(self.lines)

    @property
    def url(self) -> str:
        found = re.search(r"server\s+(\S+)", "".join(self.lines))
        assert found is not None
        return found[1]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


@contextmanager
def serving(
    folder: Path,
    *options: str,
    engine: str = "embedded",
    until: str = "ready in",
    environment: Mapping[str, str] | None = None,
) -> Iterator[Dev]:
    """`flowctl dev` of a project on free ports, stopped at the end."""
    arguments = [*FLOWCTL, "dev", "--port", "0", "--engine-port", "0", "--engine", engine, *options]
    process = subprocess.Popen(
        arguments, cwd=folder, stderr=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})}
    )
    running = Dev(process)
    reader = threading.Thread(target=running.collect)
    reader.start()
    try:
        running.wait_for(until)
        yield running
    finally:
        if process.poll() is None:
            running.stop()
        reader.join(timeout=10)
        assert process.stderr is not None
        process.stderr.close()


@pytest.fixture
def dev(project: Path) -> Iterator[Dev]:
    """`flowctl dev` of the counter project."""
    with serving(project) as running:
        yield running


def family(root: int) -> set[int]:
    """The processes below one, by pid."""
    found: set[int] = set()
    parents = {root}
    while parents:
        below = {pid for pid, parent in _parents().items() if parent in parents} - found
        found |= below
        parents = below
    return found


def _parents() -> dict[int, int]:
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return parents


def alive(pid: int) -> bool:
    """Whether a process still runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def result_of(process: subprocess.CompletedProcess[str]) -> Any:
    """The JSON that a command printed."""
    assert process.stdout, process.stderr
    return json.loads(process.stdout)
