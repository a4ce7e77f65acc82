"""All printing: results on stdout, everything else on stderr, colour on terminals only."""

from __future__ import annotations

import json
import os
import sys
from typing import Any, TextIO

STYLES = {"dim": "2", "red": "31", "green": "32", "yellow": "33", "bold": "1"}


def style(text: str, name: str, *, stream: TextIO | None = None) -> str:
    """The text in a colour, where the stream is a terminal that wants colours."""
    target = sys.stderr if stream is None else stream
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not target.isatty()
    return text if plain else f"\x1b[{STYLES[name]}m{text}\x1b[0m"


def say(text: str = "") -> None:
    """A line for people."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def result(value: Any, *, indent: int | None = None) -> None:
    """JSON for programs (and people), alone on stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=indent) + "\n")
    sys.stdout.flush()


def text(lines: str) -> None:
    """Plain output, alone on stdout."""
    sys.stdout.write(f"{lines}\n")
    sys.stdout.flush()
