"""The pages that are typed along: every block in them runs, in order, and says what the page says."""

from __future__ import annotations

import contextlib
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.cli.conftest import FLOWCTL, Dev, flowctl

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r'```(?:(?P<kind>console)|python title="(?P<file>[^"]+)")\n(?P<text>.*?)```', re.DOTALL)
RUN_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")


@dataclass
class Reader:
    """Somebody who types what the guide says."""

    folder: Path
    run_id: str = ""
    dev: Dev | None = None
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def write(self, file: str, text: str) -> None:
        seen = len(self.dev.lines) if self.dev else 0
        (self.folder / file).write_text(text)
        if self.dev is not None:  # both "reloaded x.py" and "x.py could not be loaded"
            self.dev.wait_for(Path(file).name, after=seen)

    def type(self, block: str) -> None:
        for entry in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *expected = entry.strip().splitlines()
            shown = self._output(command)
            missing = [line for line in expected if " ".join(line.split()) not in " ".join(shown.split())]
            assert missing == [], f"$ {command}\n{shown}"

    def _output(self, command: str) -> str:
        if command.startswith("cd "):
            self.folder /= command.removeprefix("cd ")
            return ""
        if command == "flowctl dev &":
            self._start_dev()
            return ""
        words = shlex.split(command.replace("RUN", self.run_id))
        if words[0] == "python":
            ran = subprocess.run(
                [sys.executable, *words[1:]], cwd=self.folder, capture_output=True, text=True, check=False
            )
        else:
            ran = flowctl(*words[1:], cwd=self.folder)
        if "suspended in" in ran.stderr:
            self.run_id = RUN_ID.findall(ran.stderr)[0]
        return ran.stdout + ran.stderr

    def _start_dev(self) -> None:
        arguments = [*FLOWCTL, "dev", "--port", "0", "--engine-port", "0", "--engine", "embedded"]
        process = self.stack.enter_context(
            subprocess.Popen(arguments, cwd=self.folder, stderr=subprocess.PIPE, text=True)
        )
        dev = Dev(process)
        reading = threading.Thread(target=dev.collect)
        reading.start()
        self.stack.callback(reading.join)
        self.stack.callback(process.send_signal, signal.SIGINT)
        dev.wait_for("ready in")
        self.dev = dev


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(tmp_path)
    with reader.stack:
        yield reader


@pytest.mark.parametrize("page", ["guide.md", "dev.md"])
def test_every_block_of_the_page_runs_and_says_what_the_page_says(reader: Reader, page: str) -> None:
    for block in BLOCK.finditer((DOCS / page).read_text()):
        if block["file"]:
            reader.write(block["file"], block["text"])
        else:
            reader.type(block["text"])
