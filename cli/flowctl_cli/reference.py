"""All commands as their parsers describe them: the text of `docs/cli.md`, and the table for completion.

Called by `scripts/cli_reference.py` and by the test that holds both files to it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

import typer.main

from flowctl_cli.main import COMMANDS, GROUPS, help_text, parser_of
from flowctl_templates import TEMPLATES

WIDTH = 100
HEAD = """\
# The command line

What `flowctl --help` and `flowctl COMMAND --help` print. Results go to stdout, all else to stderr; `NO_COLOR`
turns colours off. [Projects, settings and servers](projects.md) has what commands find by themselves and what
`--json` prints. Every command ends with one of these codes:

| code | means |
|---|---|
| 0 | success |
| 1 | a run failed or was canceled; a build or a deploy failed; `doctor` found something |
| 2 | wrong usage, an unknown name, invalid JSON, input that does not fit its schema |
| 3 | the project or its app could not be loaded |
| 4 | a server or an engine was not reachable, a port was in use, no Docker daemon |
| 5 | a run is suspended or paused |
| 130 | interrupted |
"""
LOOKED_UP = {"workflow": "workflow", "run": "run", "step": "step"}


def markdown() -> str:
    """The page."""
    sections = [HEAD, _block("flowctl --help", help_text())]
    for group, commands in GROUPS.items():
        sections.append(f"## {group}\n")
        for name in commands:
            sections.append(f"### {name}\n")
            sections.extend(_block(f"{path} --help", text) for path, text in _helps(name))
    return "\n".join(sections)


def completions() -> dict[str, Any]:
    """What may follow each command: subcommands, options with the kind of their values, arguments."""
    return {name: _described(_parser(name), COMMANDS[name]) for name in COMMANDS}


def _helps(name: str) -> Iterator[tuple[str, str]]:
    parser, path = _parser(name), f"flowctl {name}"
    context: Any = parser.make_context(
        path, [], resilient_parsing=True, max_content_width=WIDTH, terminal_width=WIDTH
    )
    yield path, parser.get_help(context)
    for sub, command in getattr(parser, "commands", {}).items():
        inner = command.make_context(f"{path} {sub}", [], resilient_parsing=True, terminal_width=WIDTH)
        yield f"{path} {sub}", command.get_help(inner)


def _block(command: str, text: str) -> str:
    return f"```text\n$ {command}\n{text.rstrip()}\n```\n"


def _parser(name: str) -> Any:
    return typer.main.get_command(parser_of(name))


def _described(parser: Any, help: str) -> dict[str, Any]:
    subs: Mapping[str, Any] = getattr(parser, "commands", {})
    if subs:
        return {
            "help": help,
            "commands": {name: _described(sub, _first_line(sub)) for name, sub in subs.items()},
        }
    types = get_type_hints(inspect.unwrap(parser.callback))
    kinds = {parameter.name: _kind(parameter.name, types[parameter.name]) for parameter in parser.params}
    options = {
        name: {
            "help": str(parameter.help or ""),
            "value": None if parameter.is_flag else kinds[parameter.name],
        }
        for parameter in parser.params
        if parameter.param_type_name == "option"
        for name in [*parameter.opts, *parameter.secondary_opts]
    }
    arguments = [kinds[p.name] for p in parser.params if p.param_type_name == "argument"]
    return {"help": help, "options": options, "arguments": arguments}


def _first_line(parser: Any) -> str:
    return str(parser.help).strip().splitlines()[0]


def _kind(name: str, type_: Any) -> Any:
    """What a value is: one of a list, something that is looked up, or text."""
    if name == "template":
        return list(TEMPLATES)
    literals = [type_, *get_args(type_)]
    choices = [value for literal in literals if get_origin(literal) is Literal for value in get_args(literal)]
    return choices or LOOKED_UP.get(name, "text")
