"""How a worker's log looks: a time, a level where it matters, the message."""

from __future__ import annotations

import logging
import sys

from flowctl_cli.console import style
from flowctl_cli.tracebacks import UsersFrames

# Clients that log each of their requests: of interest only to who debugs them.
CHATTY = ("httpx", "httpcore", "asyncio", "websockets", "watchfiles", "uvicorn")
COLOURS = {logging.WARNING: "yellow", logging.ERROR: "red", logging.CRITICAL: "red"}


class Lines(UsersFrames):
    """One line a record; tracebacks of the user's code whole, without ours."""

    def __init__(self) -> None:
        super().__init__("%(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        message = super().format(record)
        if record.levelno > logging.INFO:
            message = f"{style(record.levelname.lower(), COLOURS.get(record.levelno, 'dim'))} {message}"
        source = "" if record.name.startswith("flowctl") else style(f"{record.name}: ", "dim")
        return f"{style(self.formatTime(record, self.datefmt), 'dim')}  {source}{message}"


def configure(level: str) -> None:
    """Log to stderr from this level on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    if level != "debug":
        for name in CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
