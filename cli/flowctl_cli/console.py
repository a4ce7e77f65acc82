"""All printing: results on stdout, everything else on stderr, colour on terminals only."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import sys
import textwrap
from collections.abc import Generator, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

STYLES = {"dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36", "bold": "1"}
COLUMN_GAP = "  "
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def style(text: str, name: str, *, stream: TextIO | None = None) -> str:
    """The text in a colour, where the stream is a terminal that wants colours."""
    target = sys.stderr if stream is None else stream
    return text if not wants_colour(target) else f"\x1b[{STYLES[name]}m{text}\x1b[0m"


def wants_colour(stream: TextIO) -> bool:
    """Whether a stream is a terminal that shows colours, and the user has not said NO_COLOR."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and stream.isatty()


def is_live() -> bool:
    """Whether people watch stderr on a terminal that can be redrawn."""
    return os.environ.get("TERM") != "dumb" and sys.stderr.isatty()


def is_interactive() -> bool:
    """Whether somebody is there to answer questions."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def say(text: str = "") -> None:
    """A line for people."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def say_prose(text: str) -> None:
    """Sentences for people: a terminal gets them broken between words; indented lines stay whole."""
    room = shutil.get_terminal_size().columns if sys.stderr.isatty() else None
    say("\n".join(line if room is None else _folded(line, room) for line in text.splitlines()))


def _folded(line: str, room: int) -> str:
    if len(line) <= room or line.startswith(" "):
        return line
    return textwrap.fill(line, room, break_long_words=False, break_on_hyphens=False)


def typed(run_id: str) -> str:
    """A run's id as it is typed in a command: on a terminal the first letters of a UUID do."""
    return run_id[:8] if is_live() and _UUID.fullmatch(run_id) else run_id


@contextlib.contextmanager
def ctrl_c_interrupts() -> Generator[None]:
    """Have Ctrl-C end a question at once: an event loop's own handler would wait for the answer."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def result(value: Any, *, indent: int | None = None) -> None:
    """JSON for programs, alone on stdout."""
    text(json.dumps(value, ensure_ascii=False, indent=indent))


def shown(value: Any) -> None:
    """JSON on stdout as its reader likes it: one line in a pipe, indented and coloured on a terminal."""
    stdout = _stdout()
    if not stdout.isatty():
        result(value)
        return
    from rich.console import Console  # noqa: PLC0415 - pipes need no colours

    console = Console(file=stdout, color_system="auto" if wants_colour(stdout) else None)
    console.print_json(data=value, ensure_ascii=False)


class ReaderGoneError(Exception):
    """Nobody reads stdout any more, as after `| head -1`."""


def text(lines: str) -> None:
    """Plain output, alone on stdout; raises ReaderGoneError."""
    stdout = _stdout()
    try:
        stdout.write(f"{lines}\n")
        stdout.flush()
    except BrokenPipeError as err:
        # What is left in the buffer goes nowhere, or Python would complain at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
        raise ReaderGoneError from err


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Aligned columns on stdout; on a terminal the last one is cut to fit."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    stdout = _stdout()
    room = os.get_terminal_size(stdout.fileno()).columns if stdout.isatty() else None
    for number, row in enumerate([head, *rows]):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        line = cut(COLUMN_GAP.join(cells).rstrip(), room)
        text(line if number else style(line, "dim", stream=stdout))


def cut(line: str, room: int | None) -> str:
    """A line that fits into so many columns."""
    return line if room is None or len(line) <= room else f"{line[: room - 1]}…"


def brief(value: Any, *, room: int = 100) -> str:
    """A value on one line: JSON, shortened; nothing for None."""
    if value is None:
        return ""
    line = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return cut(" ".join(line.split()), room)


@cache
def people() -> Console:
    """The terminal that people read, for live views."""
    from rich.console import Console  # noqa: PLC0415 - only live views need it

    colours = "auto" if wants_colour(sys.stderr) else None
    return Console(stderr=True, color_system=colours, highlight=False)


@contextlib.contextmanager
def users_prints_aside() -> Generator[None]:
    """Send what the user's code prints in this process to stderr: stdout has the result alone."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _stdout() -> TextIO:
    """The process's own stdout, also while the user's prints are sent aside."""
    return sys.__stdout__ or sys.stdout
