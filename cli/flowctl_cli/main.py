"""The command table, loaded one command at a time, and the boundary where errors become exit codes."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence
from typing import Any

COMMANDS: dict[str, str] = {
    "create": "Make a new project from a template.",
    "dev": "Serve the project here, reload on save, run the Inngest engine beside it.",
    "invoke": "Run a workflow and show its steps as they happen.",
    "list": "Show the project's workflows and functions.",
    "graph": "Show a workflow's step graph as Mermaid or JSON.",
    "send": "Send an event to the Inngest engine.",
    "engine": "Run the embedded Inngest engine alone.",
    "build": "Package the project as a deployable bundle.",
    "start": "Run a bundle as in production.",
    "deploy": "Build, then hand the bundle to a deployer.",
}
INTERRUPTED = 130
USAGE = 2


def run(argv: Sequence[str]) -> int:
    """Run one command; answers its exit code."""
    if not argv or argv[0] in {"--help", "-h", "help"}:
        sys.stdout.write(_help())
        return 0 if argv else USAGE
    name, arguments = argv[0], list(argv[1:])
    if name not in COMMANDS:
        sys.stderr.write(_unknown(name))
        return USAGE
    try:
        return _run_command(name, arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return 0


def _run_command(name: str, arguments: list[str]) -> int:
    import typer  # noqa: PLC0415 - help and errors about the command's name need no parser
    from typer._click.exceptions import ClickException  # noqa: PLC0415 - typer names it nowhere else

    from flowctl.errors import FlowctlError  # noqa: PLC0415 - as above

    module = importlib.import_module(f"flowctl_cli.commands.{name.replace('-', '_')}")
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command(name, context_settings={"help_option_names": ["-h", "--help"]})(module.command)
    try:
        code: Any = app(arguments, prog_name=f"flowctl {name}", standalone_mode=False)
    except ClickException as err:
        err.show()
        return USAGE
    except typer.Abort:
        return INTERRUPTED
    except FlowctlError as err:
        sys.stderr.write(f"{err}\n")
        return err.exit_code
    return code if isinstance(code, int) else 0


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "Usage: flowctl COMMAND [OPTIONS]",
            "",
            "Durable workflows in Python, run by Inngest.",
            "",
            "Commands:",
            *lines,
            "",
            "Options:",
            "  --version  Show the version.",
            "  --help     Show this help; `flowctl COMMAND --help` tells more and has examples.",
            "",
        ]
    )


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, COMMANDS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"There is no command {name!r}.{hint} `flowctl --help` lists the commands.\n"
