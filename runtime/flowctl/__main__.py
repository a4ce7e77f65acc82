"""`python -m flowctl` is the `flowctl` command."""

from flowctl_cli.__main__ import main

main()
