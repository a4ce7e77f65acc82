"""A PostgreSQL server of the test's own, in a temporary folder, reached by a Unix socket only."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

SECONDS = 60


@contextlib.contextmanager
def postgres_server() -> Iterator[str]:
    """Run a server; gives its connection string. Skips the test where PostgreSQL is not installed."""
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: no initdb on PATH or in /usr/lib/postgresql")
    user = "postgres" if os.geteuid() == 0 else None  # the programs refuse to run as root
    with tempfile.TemporaryDirectory(prefix="pg-") as folder:
        if user is not None:
            shutil.chown(folder, user)
        data = Path(folder) / "data"
        made = [programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(made, user=user, check=True, stdout=subprocess.DEVNULL, cwd=folder)
        command = [programs / "postgres", "-D", data, "-k", folder, "-h", "", "-F"]
        log = (Path(folder) / "log").open("wb")
        with log, subprocess.Popen(command, user=user, cwd=folder, stderr=log, stdout=log) as server:
            try:
                yield _ready(f"host={folder} user=postgres dbname=postgres", server)
            finally:
                server.send_signal(signal.SIGINT)
                server.wait(SECONDS)


def _ready(dsn: str, server: subprocess.Popen[bytes]) -> str:
    end = time.monotonic() + SECONDS
    while True:
        try:
            psycopg.connect(dsn).close()
        except psycopg.OperationalError:
            if time.monotonic() > end or server.poll() is not None:
                raise
            time.sleep(0.05)
        else:
            return dsn


def _programs() -> Path | None:
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).parent
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return installed[-1].parent if installed else None
