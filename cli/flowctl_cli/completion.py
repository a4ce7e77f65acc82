"""Answers a shell that asks what could come next: from a table of options, and what is known of the project.

Called by `__main__` before anything else is imported, for a shell waits at every Tab. The table
(`completions.json`) is made from the parsers by `scripts/cli_reference.py`; a test holds them equal.
The shells' scripts, and so what they ask and expect, are typer's.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowctl_cli.known import recall, state_folder

VARIABLE = "_FLOWCTL_COMPLETE"
TABLE = Path(__file__).with_name("completions.json")
SHELLS = ("bash", "zsh", "fish", "powershell", "pwsh")
ANSWER_SECONDS = 0.08
RECENT_RUNS = 30

Choice = tuple[str, str]
Command = Mapping[str, Any]


def answer(instruction: str) -> int:
    """Print what the shell named in `complete_<shell>` may offer; answers the exit code."""
    shell = instruction.removeprefix("complete_")
    words, incomplete = _asked(shell)
    found = [choice for choice in choices(words, incomplete) if choice[0].startswith(incomplete)]
    if shell == "fish" and os.environ.get("_TYPER_COMPLETE_FISH_ACTION") == "is-args":
        return 0 if found else 1
    sys.stdout.write(_written(shell, found))
    return 0


def set_up(option: str, arguments: Sequence[str]) -> int:
    """`--install-completion [SHELL]` and `--show-completion [SHELL]`."""
    from typer._completion_shared import get_completion_script, install  # noqa: PLC0415 - Tab needs no typer

    shell = arguments[0] if arguments else Path(os.environ.get("SHELL", "")).name
    if shell not in SHELLS:
        sys.stderr.write(f"Which shell? flowctl {option} SHELL, one of {', '.join(SHELLS)}.\n")
        return 2
    if option == "--show-completion":
        sys.stdout.write(
            get_completion_script(prog_name="flowctl", complete_var=VARIABLE, shell=shell) + "\n"
        )
        return 0
    _, path = install(shell=shell, prog_name="flowctl", complete_var=VARIABLE)
    sys.stderr.write(f"{shell} completes flowctl in new terminals: written to {path}.\n")
    return 0


def choices(words: Sequence[str], incomplete: str) -> Iterator[Choice]:
    """What may stand after these words, each with a few words about it."""
    commands: Mapping[str, Command] = json.loads(TABLE.read_text())
    if not words:
        yield from ((name, str(command["help"])) for name, command in commands.items())
        return
    command: Command = commands.get(words[0]) or {}
    rest = list(words[1:])
    subcommands: Mapping[str, Command] = command.get("commands") or {}
    if subcommands:
        if not rest:
            yield from ((name, str(sub["help"])) for name, sub in subcommands.items())
            return
        command, rest = subcommands.get(rest[0]) or {}, rest[1:]
    yield from _of_command(command, _Place.after(rest, command), incomplete)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the next word stands: after an option that takes a value, or as the n-th argument."""

    option: str | None
    argument: int

    @classmethod
    def after(cls, words: Sequence[str], command: Command) -> _Place:
        options: Mapping[str, Any] = command.get("options") or {}
        pending: str | None = None
        arguments = 0
        for word in words:
            if pending is not None:
                pending = None
            elif word.startswith("-"):
                takes_value = "=" not in word and (options.get(word) or {}).get("value") is not None
                pending = word if takes_value else None
            else:
                arguments += 1
        return cls(pending, arguments)


def _of_command(command: Command, place: _Place, incomplete: str) -> Iterator[Choice]:
    options: Mapping[str, Any] = command.get("options") or {}
    if place.option is not None:
        yield from _values(options[place.option]["value"])
        return
    if incomplete.startswith("-"):
        yield from ((name, str(option["help"])) for name, option in options.items())
        return
    arguments: Sequence[str] = command.get("arguments") or ()
    if place.argument < len(arguments):
        yield from _values(arguments[place.argument])


def _values(kind: Any) -> Iterator[Choice]:
    """The values of a kind: a list is what it says; others are looked up; of free text nothing is known."""
    if isinstance(kind, list):
        yield from ((str(value), "") for value in kind)
        return
    folder = state_folder(Path.cwd())
    if kind == "workflow":
        yield from ((id, "workflow") for id in recall(folder))
    elif kind == "step":
        yield from ((step, id) for id, steps in recall(folder).items() for step in steps)
    elif kind == "run":
        yield from _runs(folder)


def _runs(folder: Path) -> Iterator[Choice]:
    """Recent runs: from the project's database, else from its dev server."""
    database = folder / "flowctl.db"
    if database.is_file():
        with contextlib.suppress(Exception):
            yield from _runs_stored(database)
        return
    with contextlib.suppress(Exception):
        yield from _runs_served(json.loads((folder / "dev.json").read_text())["url"], list(recall(folder)))


def _runs_stored(database: Path) -> list[Choice]:
    import sqlite3  # noqa: PLC0415 - only runs need it

    query = f"SELECT run_id, workflow_id, status FROM runs ORDER BY created_at DESC LIMIT {RECENT_RUNS}"  # noqa: S608 - a number of ours
    uri = f"file:{database}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=ANSWER_SECONDS)) as connection:
        return [(run, f"{workflow} {status}") for run, workflow, status in connection.execute(query)]


def _runs_served(url: str, workflows: Sequence[str]) -> Iterator[Choice]:
    from http.client import HTTPConnection  # noqa: PLC0415 - only other storages need it
    from urllib.parse import quote, urlsplit  # noqa: PLC0415 - as above

    connection = HTTPConnection(urlsplit(url).netloc, timeout=ANSWER_SECONDS)
    with contextlib.closing(connection):
        for id in workflows:
            connection.request("GET", f"/api/workflows/{quote(id, safe='')}/runs?perPage={RECENT_RUNS}")
            for run in json.loads(connection.getresponse().read())["runs"]:
                yield run["runId"], f"{id} {run['snapshot']['status']}"


def _asked(shell: str) -> tuple[list[str], str]:
    """The words before the cursor without `flowctl` itself, and the one it stands in."""
    if shell == "bash":
        words = _split(os.environ.get("COMP_WORDS", ""))
        at = int(os.environ.get("COMP_CWORD", "0"))
        return words[1:at], words[at] if at < len(words) else ""
    line = os.environ.get("_TYPER_COMPLETE_ARGS", "")
    words = _split(line)[1:]
    if words and not line.endswith(" "):
        return words[:-1], words[-1]
    return words, ""


def _split(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:  # a quote that is still open
        return line.split()


def _written(shell: str, found: Sequence[Choice]) -> str:
    match shell:
        case "zsh":
            listed = "\n".join(
                f'"{_zsh(value)}":"{_zsh(help)}"' if help else f'"{_zsh(value)}"' for value, help in found
            )
            return f"_arguments '*: :(({listed}))'" if found else "_files"
        case "fish":
            return "\n".join(f"{value}\t{help}" if help else value for value, help in found)
        case "powershell" | "pwsh":
            return "\n".join(f"{value}:::{help or ' '}" for value, help in found)
        case _:
            return "\n".join(value for value, _ in found)


def _zsh(text: str) -> str:
    for plain, escaped in (('"', '""'), ("'", "''"), ("$", "\\$"), ("`", "\\`"), (":", "\\\\:")):
        text = text.replace(plain, escaped)
    return text
