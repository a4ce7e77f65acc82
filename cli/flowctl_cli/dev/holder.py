"""Who listens on a port of this machine: where /proc tells it, as it does of the same user's processes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from flowctl_cli.console import brief

LISTENS = "0A"


def holder_of(port: int) -> str:
    """The process and its command, in words; nothing where they are not to be seen."""
    pids = list(_holding({f"socket:[{inode}]" for inode in _listening(port)}))
    with contextlib.suppress(OSError, ValueError):
        pid = min(pids)  # the oldest of those that share it
        command = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
        return f"process {pid} ({brief(command)})"
    return ""


def _listening(port: int) -> Iterator[str]:
    """The inodes of listening sockets with that port."""
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path("/proc/net", table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                    yield fields[9]


def _holding(sockets: set[str]) -> Iterator[int]:
    """The processes that have one of them open."""
    for process in Path("/proc").glob("[0-9]*") if sockets else ():
        with contextlib.suppress(OSError):
            if any(str(file.readlink()) in sockets for file in (process / "fd").iterdir()):
                yield int(process.name)
