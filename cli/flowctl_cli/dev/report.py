"""What is wrong with an app that does not load: where in the user's files, and how it is shown."""

from __future__ import annotations

import linecache
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flowctl.errors import FlowctlError
from flowctl_cli.project import AppImportError, user_traceback

AROUND = 2


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """An error as the terminal, the API and the Studio show it; `file` is relative to the project."""

    type: str
    message: str
    file: str | None = None
    line: int | None = None
    column: int | None = None
    code: str = ""
    traceback: str = ""
    exit_code: int = 3
    waits: bool = True

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ErrorReport:
        """From plain data."""
        return cls(**data)

    @property
    def place(self) -> str:
        """`file:line:column`, as editors open it."""
        return ":".join(str(part) for part in (self.file, self.line, self.column) if part is not None)

    def is_same_as(self, other: ErrorReport | None) -> bool:
        """Whether it was shown before, although lines around it changed."""
        return other is not None and (self.place, self.type, self.message) == (
            other.place,
            other.type,
            other.message,
        )

    def to_text(self) -> str:
        """For the terminal: the place, the code around it, and the user's traceback where there is one."""
        head = f"{self.place}  {self.type}: {self.message}" if self.file else self.message
        return "\n".join(part for part in (head, self.code, self.traceback) if part)


def report_of(err: BaseException, root: Path) -> ErrorReport:
    """What to show of an error that ended the loading of an app.

    An error of the user's own code waits for a change (`waits`); one of how flowctl was asked does not.
    """
    if isinstance(err, AppImportError) and err.__cause__ is not None:
        return _of_user_code(err.__cause__, root)
    if isinstance(err, FlowctlError):
        return ErrorReport(type(err).__name__, str(err), exit_code=err.exit_code, waits=False)
    return _of_user_code(err, root)


def status_of(report: ErrorReport | None, **facts: Any) -> dict[str, Any]:
    """The body of `GET /api/dev`: how the last load went."""
    error = report.to_json() if report else None
    if error is not None:
        del error["exit_code"], error["waits"]
    return {"state": "broken" if error else "ready", **facts, "error": error}


def _of_user_code(err: BaseException, root: Path) -> ErrorReport:
    name, exit_code = type(err).__name__, 3
    if isinstance(err, SyntaxError) and err.filename:
        column = err.offset or None
        code = _code(err.filename, err.lineno or 1, column)
        return ErrorReport(name, err.msg, _shown(err.filename, root), err.lineno, column, code)
    frame = _users_frame(err, root)
    file, line = (_shown(frame.filename, root), frame.lineno) if frame else (None, None)
    code = _code(frame.filename, frame.lineno or 1, None) if frame else ""
    # What flowctl itself says of a definition is whole without our frames.
    told = "" if isinstance(err, FlowctlError) else user_traceback(err)
    return ErrorReport(name, str(err), file, line, None, code, told, exit_code)


def _users_frame(err: BaseException, root: Path) -> traceback.FrameSummary | None:
    frames = traceback.extract_tb(err.__traceback__)
    ours = [frame for frame in frames if is_users(Path(frame.filename), root)]
    return ours[-1] if ours else None


def is_users(file: Path, root: Path) -> bool:
    """Whether a file is the project's own."""
    return file.is_relative_to(root) and not {"site-packages", ".venv", "venv"} & set(file.parts)


def _shown(file: str, root: Path) -> str:
    path = Path(file)
    return str(path.relative_to(root)) if path.is_relative_to(root) else file


def _code(file: str, line: int, column: int | None) -> str:
    """Some lines around one, which is marked."""
    linecache.checkcache(file)
    lines = linecache.getlines(file)
    first, last = max(1, line - AROUND), min(len(lines), line + AROUND)
    shown: list[str] = []
    for number in range(first, last + 1):
        text = lines[number - 1].rstrip("\n")
        shown.append(f"{'>' if number == line else ' '} {number:>4} | {text}".rstrip())
        if number == line and column is not None:
            indent = "".join("\t" if c == "\t" else " " for c in text[: column - 1])
            shown.append(f"       | {indent}^")
    return "\n".join(shown)
