"""What the server logs and how: a line a record, readable or JSON, with the id of the request it belongs to.

Called by `gate` for each request and by `app` when the server starts.
"""

from __future__ import annotations

import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

import orjson

request_id: ContextVar[str | None] = ContextVar("flowctl_request_id", default=None)
requests = logging.getLogger("flowctl.requests")

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


def configure(kind: Literal["text", "json"]) -> None:
    """Have the root logger write lines of this kind to stderr, from INFO on; once, whoever asks again."""
    root = logging.getLogger()
    formatter = JsonLines() if kind == "json" else TextLines()
    ours = next((h for h in root.handlers if isinstance(h.formatter, JsonLines | TextLines)), None)
    if ours is None:
        ours = logging.StreamHandler(sys.stderr)
        root.addHandler(ours)
    ours.setFormatter(formatter)
    if root.getEffectiveLevel() > logging.INFO:
        root.setLevel(logging.INFO)
    for noisy in ("httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    _take_over_uvicorn()


def _take_over_uvicorn() -> None:
    """Its messages come as ours; of requests there is one line, and that is ours."""
    for name in ("uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.getLogger("uvicorn.access").disabled = True


class JsonLines(logging.Formatter):
    """Time, level, logger, message, the record's extra fields, and the traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, Any] = {
            "time": _moment(record).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()


class TextLines(logging.Formatter):
    """As a person reads it: time, level, message, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and the traceback below it if there is one."""
        fields = " ".join(f"{name}={value}" for name, value in _extra(record).items())
        moment = _moment(record).astimezone().strftime("%H:%M:%S.%f")[:-3]
        line = f"{moment} {record.levelname:<7} {record.name}  {record.getMessage()}  {fields}".rstrip()
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _moment(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


def _extra(record: logging.LogRecord) -> dict[str, Any]:
    fields = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    current = request_id.get()
    return fields if current is None else {"requestId": current, **fields}
