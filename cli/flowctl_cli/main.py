"""The command table, loaded one command at a time, and the boundary where errors become exit codes."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flowctl_cli.console import ReaderGoneError, say_prose, text

if TYPE_CHECKING:
    import typer

GROUPS: dict[str, dict[str, str]] = {
    "Project": {
        "create": "Make a new project from a template.",
        "list": "Show the project's workflows and functions.",
        "graph": "Show a workflow's step graph as Mermaid or JSON.",
        "doctor": "Look for what is wrong here, and say how to mend it.",
    },
    "Serve": {
        "dev": "Serve the project, reload on save, run an Inngest engine.",
        "engine": "Run the embedded Inngest engine alone.",
    },
    "Run": {
        "invoke": "Run a workflow and show its steps as they happen.",
        "runs": "List, show, watch and delete runs.",
        "resume": "Go on with a suspended run.",
        "cancel": "End a run.",
        "restart": "Go on with a run whose process is gone.",
        "time-travel": "Run again from a step on.",
        "send": "Send an event to the Inngest engine.",
    },
    "Ship": {
        "build": "Package the project as a deployable bundle.",
        "start": "Run a bundle as in production.",
        "deploy": "Build, then hand the bundle to a deployer.",
    },
}
COMMANDS: dict[str, str] = {name: text for group in GROUPS.values() for name, text in group.items()}
OPTIONS = """\
Options:
  --version             Show the version.
  --install-completion  Have the shell complete names of commands and runs.
  --show-completion     Print the script that does so.
  --help                Show this help; a command's own has examples.
"""
DEFAULT_SUBCOMMANDS = {"runs": "list"}
COMPLETION = {"--install-completion", "--show-completion"}
HELP = {"--help", "-h", "help"}
INTERRUPTED = 130
USAGE = 2


def run(argv: Sequence[str]) -> int:
    """Run one command; answers its exit code."""
    try:
        return _run(argv)
    except KeyboardInterrupt:
        return INTERRUPTED
    except ReaderGoneError:
        return 0


def _run(argv: Sequence[str]) -> int:
    if not argv or argv[0] in HELP:
        return _help(argv)
    name, arguments = argv[0], list(argv[1:])
    if name in COMPLETION:
        from flowctl_cli.completion import set_up  # noqa: PLC0415 - few people ask for it, once

        return set_up(name, arguments)
    if name not in COMMANDS:
        say_prose(_unknown(name))
        return USAGE
    return _run_command(name, arguments)


def _help(argv: Sequence[str]) -> int:
    """All commands, or the one that is named after `help`."""
    if len(argv) > 1 and argv[1] in COMMANDS:
        return run([argv[1], "--help"])
    text(help_text().rstrip())
    return 0 if argv else USAGE


def _run_command(name: str, arguments: list[str]) -> int:
    import typer  # noqa: PLC0415 - help and errors about the command's name need no parser
    from typer._click.exceptions import ClickException  # noqa: PLC0415 - typer names it nowhere else

    from flowctl.errors import FlowctlError  # noqa: PLC0415 - as above

    app = parser_of(name)
    try:
        code: Any = app(_with_subcommand(name, arguments), prog_name=f"flowctl {name}", standalone_mode=False)
    except ClickException as err:
        say_prose(_usage(name, err))
        return USAGE
    except typer.Abort:
        return INTERRUPTED
    except FlowctlError as err:
        say_prose(str(err))
        return err.exit_code
    return code if isinstance(code, int) else 0


def parser_of(name: str) -> typer.Typer:
    """A command's parser: what its module has as `app`, or one made of its function `command`."""
    from flowctl_cli.options import parser  # noqa: PLC0415 - as above

    module = importlib.import_module(f"flowctl_cli.commands.{name.replace('-', '_')}")
    app: typer.Typer = getattr(module, "app", None) or parser()
    if hasattr(module, "command"):
        app.command(name)(module.command)
    return app


def help_text() -> str:
    """What `flowctl --help` prints."""
    width = max(map(len, COMMANDS))
    sections = [
        "\n".join([f"{group}:", *(f"  {name:<{width}}  {text}" for name, text in commands.items())])
        for group, commands in GROUPS.items()
    ]
    return "\n\n".join(
        [
            "Usage: flowctl COMMAND [OPTIONS]",
            "Durable workflows in Python, run by Inngest.",
            *sections,
            OPTIONS,
        ]
    )


def _with_subcommand(name: str, arguments: list[str]) -> list[str]:
    """The arguments, with the subcommand that is meant when none is named."""
    default = DEFAULT_SUBCOMMANDS.get(name)
    named = arguments and (not arguments[0].startswith("-") or arguments[0] in HELP)
    return arguments if default is None or named else [default, *arguments]


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"There is no command {name!r}.{hint} `flowctl --help` lists the commands."


def _usage(name: str, err: Any) -> str:
    """A mistake in the options, in one line, with the way to the help."""
    path = err.ctx.command_path if getattr(err, "ctx", None) else f"flowctl {name}"
    message = err.format_message()
    if possible := getattr(err, "possibilities", None):
        message = f"There is no option {err.option_name}. Did you mean {possible[0]!r}?"
    lists = (
        "commands" if hasattr(getattr(getattr(err, "ctx", None), "command", None), "commands") else "options"
    )
    return f"{path}: {message}\n`{path} --help` lists the {lists}."
