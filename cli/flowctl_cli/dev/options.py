"""What `flowctl dev` was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flowctl_cli.dev.engine import DEFAULT_IMAGE
from flowctl_cli.project import Project

LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class DevOptions:
    """The command's options, with the project's settings and defaults filled in."""

    project: Project
    host: str = "127.0.0.1"
    port: int = 4111
    engine: str = "auto"
    engine_port: int = 8288
    engine_image: str = DEFAULT_IMAGE
    reload: bool = True
    open: bool = False
    https: bool = False
    debug: bool = False
    debug_port: int = 5678
    log_level: str = "info"
    app: str | None = None
    env_file: Path | None = None
