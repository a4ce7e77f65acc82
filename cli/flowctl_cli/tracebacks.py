"""The user's tracebacks without our frames: whole from their first line on, and nothing of ours."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import flowctl
from flowctl_cli.console import say, say_prose, style

_OURS = (str(Path(flowctl.__file__).parent), str(Path(__file__).parent))
_INSTALLED = ("/site-packages/flowctl/", "/site-packages/flowctl_cli/")  # a server's own, wherever that is
_CARRIERS = ("/asyncio/", "/concurrent/futures/", "/threading.py")
_FRAME = re.compile(r'\s*File "(?P<file>[^"]+)", line \d+')
_HEAD = "Traceback (most recent call last)"
_LOGGED: set[str] = set()  # tracebacks that this process has shown as they happened


def without_ours(stack: str) -> str:
    """A traceback's text without flowctl's frames, nor those of tasks and threads before the user's.

    Nothing, when there is no frame of the user's in it.
    """
    kept: list[str] = []
    skipping = begun = found = False
    for line in stack.splitlines():
        frame = _FRAME.match(line)
        if frame is not None:
            skipping = _is_ours(frame["file"], begun=begun)
            begun = begun or not skipping
            found = found or begun
        elif not line.startswith("    "):
            skipping, begun = False, begun and _HEAD not in line
        if not skipping:
            kept.append(line)
    return "\n".join(kept) if found else ""


def _is_ours(file: str, *, begun: bool) -> bool:
    parts = _INSTALLED if begun else (*_INSTALLED, *_CARRIERS)
    return file.startswith(_OURS) or any(part in file for part in parts)


def say_error(error: Mapping[str, Any]) -> None:
    """An error as data: with the user's traceback where it is known, and no log has shown it here before."""
    stack = without_ours(str(error.get("stack") or "")).rstrip()
    say_prose(stack if stack and stack not in _LOGGED else "\ncaused by ".join(_chain(error)))


def _chain(error: Mapping[str, Any]) -> Iterator[str]:
    """An error and its causes, a line each."""
    yield style(f"{error.get('name', 'Error')}: {error.get('message', '')}", "red")
    if isinstance(cause := error.get("cause"), Mapping):
        yield from _chain(cause)


def show_logs() -> None:
    """Print warnings and errors on stderr, unless the app has set up logging; of frames, the user's alone."""
    if not logging.getLogger().handlers:
        logging.getLogger().addHandler(_Shown())


class _Shown(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))

    def format(self, record: logging.LogRecord) -> str:
        text = UsersFrames().format(record)
        _LOGGED.add(record.exc_text or "")
        return text


class UsersFrames(logging.Formatter):
    """Formats tracebacks without our frames."""

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the name that logging calls
        """See logging.Formatter."""
        return without_ours(super().formatException(ei))
