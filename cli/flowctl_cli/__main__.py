"""The `flowctl` command. `--version` answers before anything is imported."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; exits the process."""
    if sys.argv[1:] in (["--version"], ["-V"]):
        from importlib.metadata import version  # noqa: PLC0415 - the only import this option needs

        sys.stdout.write(f"flowctl {version('flowctl-workflows')}\n")
        return
    from flowctl_cli.main import run  # noqa: PLC0415 - see the module's first line

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
