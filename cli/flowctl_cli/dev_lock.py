"""Which dev server serves a project: held by a file lock, so a dead one is never believed."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar

from flowctl.errors import ConfigurationError, FlowctlError
from flowctl_cli.project import Project

TRIES, PAUSE_SECONDS = 4, 0.05


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
        """Take it; raises AlreadyRunningError that names the holder, or ConfigurationError."""
        path = _path(project)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            (path.parent / ".gitignore").write_text("*\n")
            file = path.open("a+")
        except OSError as err:
            raise ConfigurationError(
                f"Cannot write {str(path.parent)!r}, where a dev server keeps its lock and databases: "
                f"{err.strerror}."
            ) from err
        if not _locked(file):
            holder = _read(path)
            file.close()
            raise AlreadyRunningError(
                f"A dev server of this project runs already: process {holder.get('pid')} at "
                f"{holder.get('url')}. Stop it first."
            )
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


def running(project: Project) -> Mapping[str, Any]:
    """What the project's dev server says of itself (`pid`, `url`, `engine`); nothing when none runs."""
    path = _path(project)
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(path)
    except OSError:
        return {}
    return {}


def _locked(file: IO[str]) -> bool:
    """Whether the lock could be had; one that merely looks who holds it has it for a moment."""
    for last in [False] * (TRIES - 1) + [True]:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            time.sleep(0 if last else PAUSE_SECONDS)
        else:
            return True
    return False


def _path(project: Project) -> Path:
    return project.state / "dev.json"


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
