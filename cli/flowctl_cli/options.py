"""Options that several commands share."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from flowctl.errors import ConfigurationError

Dir = Annotated[Path | None, typer.Option("--dir", help="The project's folder (default: this one).")]
AppName = Annotated[
    str | None, typer.Option("--app", metavar="MODULE:ATTR", help="The app, if it is not found by itself.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Url = Annotated[str | None, typer.Option("--url", help="The server (default: this project's dev server).")]
EnvFile = Annotated[Path | None, typer.Option("--env-file", help="A file of environment variables.")]
Local = Annotated[
    bool, typer.Option("--local", help="Use the project's app and storage in this process, without a server.")
]
RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run's id; its first letters do.")]
StepPath = Annotated[
    str | None, typer.Option("--step", "-s", metavar="STEP", help="The step's id; `outer.inner` if nested.")
]
Data = Annotated[
    str | None, typer.Option("--data", "-d", metavar="JSON", help="JSON, @file, or - for stdin.")
]
Context = Annotated[
    str | None, typer.Option("--context", metavar="JSON", help="The request context: JSON, @file, or -.")
]
PerStep = Annotated[bool, typer.Option("--per-step", help="Stop after one step.")]


def given(value: str | None, option: str = "--data") -> Any:
    """What an option says: JSON itself, `@file`, or `-` for stdin; None when it is not given."""
    if value is None:
        return None
    text = _read(value, option)
    try:
        return json.loads(text)
    except json.JSONDecodeError as err:
        raise ConfigurationError(f"{option} is no valid JSON: {err}.{_quoting(text)}") from err


def _read(value: str, option: str) -> str:
    if value == "-":
        return sys.stdin.read()
    if not value.startswith("@"):
        return value
    try:
        return Path(value[1:]).read_text()
    except OSError as err:
        raise ConfigurationError(f"{option}: cannot read {value[1:]!r}: {err.strerror}.") from err


def _quoting(value: str) -> str:
    if value[:1] in {"{", "["} and '"' not in value:
        return " The shell took the quotes: put single ones around the whole, '{\"key\": 1}'."
    return "" if value[:1] in {"{", "[", '"'} else f" A string needs its own quotes: '{json.dumps(value)}'."


def parser(help: str | None = None) -> typer.Typer:
    """A parser as all commands have it: plain help, both `-h` and `--help`, errors left to the caller."""
    return typer.Typer(
        help=help,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
