"""The `flowctl` command. `--version` answers before anything is imported."""

from __future__ import annotations

import sys

from flowctl_cli import __version__


def main() -> None:
    """Run the command line; exits the process."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        sys.stdout.write(f"flowctl {__version__}\n")
        return
    from flowctl_cli.main import run  # noqa: PLC0415 - see the module's first line

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
