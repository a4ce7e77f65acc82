"""Options that several commands share."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Never

import typer

from flowctl.errors import ConfigurationError
from flowctl_cli.console import say, style

AROUND = 30

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
    if not text.strip():
        raise ConfigurationError(f"{option} is empty: give it JSON, for example '{{\"key\": 1}}'.")
    try:
        return json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as err:
        reason = f"{option} is no valid JSON: {err.msg}, at line {err.lineno}, column {err.colno}."
        raise ConfigurationError(f"{reason}{_quoting(text)}{_place(err)}") from err
    except ValueError as err:
        raise ConfigurationError(f"{option} is no valid JSON: {err}") from err
    except RecursionError as err:
        raise ConfigurationError(f"{option} is nested too deeply.") from err


def _read(value: str, option: str) -> str:
    """The text that is meant; UTF-8, with or without the mark that Windows puts before it."""
    if value != "-" and not value.startswith("@"):
        return value
    name = "stdin" if value == "-" else value[1:]
    if value == "-" and sys.stdin.isatty():
        say(style(f"{option}: type JSON, then Ctrl-D on a line of its own", "dim"))
    try:
        raw = sys.stdin.buffer.read() if value == "-" else Path(name).expanduser().read_bytes()
        return raw.decode("utf-8-sig")
    except OSError as err:
        raise ConfigurationError(f"{option}: cannot read {name!r}: {err.strerror}.") from err
    except UnicodeDecodeError as err:
        raise ConfigurationError(f"{option}: {name} is no UTF-8 text, at byte {err.start}.") from err


def _no_constant(name: str) -> Never:
    raise ValueError(f"it has no {name}; use null, or a string.")


def _place(err: json.JSONDecodeError) -> str:
    """The line in which the mistake is, with a mark below it; of a long one, what is around."""
    lines = err.doc.splitlines()
    if err.lineno > len(lines):
        return ""
    begin = max(0, err.colno - 1 - AROUND)
    shown = lines[err.lineno - 1].replace("\t", " ")[begin : err.colno - 1 + AROUND]
    return f"\n  {shown}\n  {' ' * (err.colno - 1 - begin)}^"


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
