"""The `flowctl` command. `--version` and a shell's Tab are answered before anything else is imported."""

from __future__ import annotations

import os
import sys

from flowctl_cli import __version__


def main() -> None:
    """Run the command line; exits the process."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        sys.stdout.write(f"flowctl {__version__}\n")
        return
    if "_FLOWCTL_COMPLETE" in os.environ:
        from flowctl_cli.completion import VARIABLE, answer  # noqa: PLC0415 - see the module's first line

        sys.exit(answer(os.environ[VARIABLE]))
    if sys.argv[1:2] == ["dev"] and not {"--help", "-h"} & set(sys.argv):
        _run_dev()
    from flowctl_cli.main import run  # noqa: PLC0415 - see the module's first line

    sys.exit(run(sys.argv[1:]))


def _run_dev() -> None:
    """`flowctl dev` begins with what takes longest: another process imports while this one reads options."""
    from flowctl_cli.dev import warm  # noqa: PLC0415 - see the module's first line

    warm.start_early()
    from flowctl_cli.main import run  # noqa: PLC0415 - as above

    try:
        code = run(sys.argv[1:])
    finally:
        warm.discard()
    sys.exit(code)


if __name__ == "__main__":
    main()
