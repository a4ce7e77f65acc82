"""Which dev server serves a project: held by a file lock, so a dead one is never believed."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar

from flowctl.errors import FlowctlError
from flowctl_cli.project import Project

DEFAULT_URL = "http://127.0.0.1:4111"


class AlreadyRunningError(FlowctlError):
    """Another dev server serves this project."""

    code = "DEV_RUNNING"
    exit_code: ClassVar[int] = 4


@dataclass(slots=True)
class DevLock:
    """The lock of a project while its dev server lives."""

    file: IO[str]

    @classmethod
    def take(cls, project: Project) -> DevLock:
        """Take it; raises AlreadyRunningError that names the holder."""
        path = _path(project)
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / ".gitignore").write_text("*\n")
        file = path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            holder = _read(path)
            file.close()
            raise AlreadyRunningError(
                f"A dev server of this project runs already: process {holder.get('pid')} at "
                f"{holder.get('url')}. Stop it first."
            ) from err
        return cls(file)

    def write(self, **facts: Any) -> None:
        """Say where the server is."""
        self.file.seek(0)
        self.file.truncate()
        json.dump({"pid": os.getpid(), **facts}, self.file)
        self.file.flush()

    def release(self) -> None:
        """Let it go."""
        self.file.seek(0)
        self.file.truncate()
        self.file.close()


def dev_url(project: Project) -> str:
    """The URL of the project's dev server, or the default one."""
    return str(_read(_path(project)).get("url") or DEFAULT_URL)


def engine_url(project: Project) -> str | None:
    """The URL of the engine that the project's dev server uses."""
    return _read(_path(project)).get("engine")


def _path(project: Project) -> Path:
    return project.state / "dev.json"


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
