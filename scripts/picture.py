"""Draws docs/terminal.svg, the README's picture: `flowctl dev` and, beside it, a run (needs tmux)."""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

PICTURE = Path(__file__).parent.parent / "docs" / "terminal.svg"
PROJECT = "counter-demo"
TMUX = ["tmux", "-L", "flowctl-picture"]
COLUMNS = 112
DEADLINE_SECONDS = 60
PROMPT = r"\$$"


def main() -> None:
    """Play both terminals and draw what they show."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "flowctl", "create", PROJECT, "--yes"], cwd=folder, check=True)
        open_terminal("dev", folder)
        try:
            play("dev", "flowctl dev", until="ready in")
            open_terminal("run", folder)
            play("run", """flowctl invoke increment-workflow --data '{"value": 5}'""", until=PROMPT)
            shown = screen("dev", "-e") + "\n\n" + screen("run", "-e").removesuffix("$")
            PICTURE.write_text(drawn(shown))
        finally:
            tmux("send-keys", "-t", "dev", "C-c")
            wait_for("dev", PROMPT)
            tmux("kill-server")


def open_terminal(name: str, folder: str) -> None:
    """A shell in the project, as the session of that name."""
    shell = ["env", f"PATH={Path(sys.executable).parent}:{os.environ['PATH']}", "PS1=$ ", "sh"]
    where = ["-c", f"{folder}/{PROJECT}", "-x", str(COLUMNS), "-y", "30"]
    tmux("new-session", "-d", "-s", name, *where, shlex.join(shell))
    wait_for(name, PROMPT)


def play(name: str, command: str, *, until: str) -> None:
    """Type a command and wait until its terminal shows a sign of its end."""
    tmux("send-keys", "-t", name, command, "Enter")
    wait_for(name, re.escape(command))
    wait_for(name, until)


def wait_for(name: str, sign: str) -> None:
    """Until a terminal shows the sign, a regular expression."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not re.search(sign, screen(name)):
        if time.monotonic() > deadline:
            raise SystemExit(f"The terminal did not show {sign!r}:\n{screen(name)}")
        time.sleep(0.1)


def screen(name: str, *options: str) -> str:
    """What a terminal shows."""
    return tmux("capture-pane", "-p", "-t", name, *options).strip()


def tmux(*arguments: str) -> str:
    """What a command of tmux prints."""
    done = subprocess.run([*TMUX, *arguments], check=True, capture_output=True, text=True, timeout=10)
    return done.stdout


def drawn(text: str) -> str:
    """Text with ANSI colours as SVG."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi(text))
    return console.export_svg(title="flowctl", unique_id="terminal")


if __name__ == "__main__":
    main()
