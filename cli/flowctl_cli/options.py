"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Dir = Annotated[Path | None, typer.Option("--dir", help="The project's folder (default: this one).")]
AppName = Annotated[
    str | None, typer.Option("--app", metavar="MODULE:ATTR", help="The app, if it is not found by itself.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Url = Annotated[str | None, typer.Option("--url", help="The server (default: this project's dev server).")]
EnvFile = Annotated[Path | None, typer.Option("--env-file", help="A file of environment variables.")]
