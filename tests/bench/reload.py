"""How fast a dev server starts and reloads, side by side with `uvicorn --reload` on the same app.

    python tests/bench/reload.py

Bars: a cold start within 1.3 times uvicorn's, a save served within 0.2 times, no failed request, 150 MB.
A save with an event stream open has no bar there: `uvicorn --reload` waits for the stream's end.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

APP = """
import asyncio
import inngest
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route
from flowctl import App, ServerConfig, create_step, create_workflow

async def run(ctx):
    return 1

async def version(request):
    return PlainTextResponse("version 0")

async def events(request):
    async def forever():
        yield "data: open\\n\\n"
        await asyncio.Event().wait()
    return StreamingResponse(forever(), media_type="text/event-stream")

step = create_step(id="s", execute=run)
client = inngest.Inngest(app_id="bench", is_production=False)
routes = [Route("/version", version), Route("/events", events)]
app = App(workflows=[create_workflow(id="w").then(step)], inngest=client, server=ServerConfig(routes=routes))
"""
SCRIPTS = Path(sys.executable).parent
STARTS_WITHIN, SERVED_WITHIN, STREAM_WITHIN = 60.0, 60.0, 6.0
POLL_SECONDS = 0.003
SETTLE_SECONDS = 0.7
BARS = {"cold start": 1.3, "save": 0.2}
MOST_MB = 150


@dataclass
class Measured:
    """What was seen of one server, in seconds and MB."""

    cold_start: list[float] = field(default_factory=list[float])
    save: list[float] = field(default_factory=list[float])
    save_with_stream: list[float] = field(default_factory=list[float])
    memory: list[float] = field(default_factory=list[float])
    failed: int = 0


def main() -> None:
    """Take turns, so that whatever else the machine does is shared by both; print medians and ratios."""
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--saves", type=int, default=5)
    given = options.parse_args()
    seen = {"flowctl dev": Measured(), "uvicorn --reload": Measured()}
    for _ in range(given.rounds):
        for name, measured in seen.items():
            with tempfile.TemporaryDirectory() as folder:
                measure(name, Path(folder), measured, saves=given.saves)
    report(seen["flowctl dev"], seen["uvicorn --reload"])


def measure(name: str, folder: Path, measured: Measured, *, saves: int) -> None:
    """One start, some saves, one save beside an open stream."""
    (folder / "app.py").write_text(APP)
    (folder / "pyproject.toml").write_text('[tool.flowctl]\napp = "app:app"\n')
    port = free_port()
    commands = {
        "flowctl dev": ["flowctl", "dev", "--engine", "embedded", "--engine-port", free_port()],
        "uvicorn --reload": ["uvicorn", "--reload", "app:app.asgi"],
    }
    url = f"http://127.0.0.1:{port}"
    began = time.perf_counter()
    with running([*commands[name], "--port", port], folder) as process:
        measured.cold_start.append(served(url, 0, began, within=STARTS_WITHIN)[0] or STARTS_WITHIN)
        time.sleep(2 * SETTLE_SECONDS)
        for version in range(1, saves + 1):
            seconds, failed = save(folder, url, version, within=SERVED_WITHIN)
            measured.save.append(seconds or SERVED_WITHIN)
            measured.failed += failed
        measured.memory.append(memory_mb(process.pid))
        with contextlib.closing(urllib.request.urlopen(f"{url}/events")):
            seconds, _ = save(folder, url, saves + 1, within=STREAM_WITHIN)
        if seconds is not None:
            measured.save_with_stream.append(seconds)


def save(folder: Path, url: str, version: int, *, within: float) -> tuple[float | None, int]:
    """Seconds until a saved version is served (None: not in that time), and how many requests failed."""
    (folder / "app.py").write_text(APP.replace("version 0", f"version {version}"))
    seen = served(url, version, time.perf_counter(), within=within)
    time.sleep(SETTLE_SECONDS)
    return seen


def served(url: str, version: int, began: float, *, within: float) -> tuple[float | None, int]:
    """Ask until the version is there."""
    failed = 0
    while time.perf_counter() - began < within:
        answer = asked(f"{url}/version")
        if answer == f"version {version}":
            return time.perf_counter() - began, failed
        failed += answer is None
        time.sleep(POLL_SECONDS)
    return None, failed


def asked(url: str) -> str | None:
    """The answer, or None when there is none."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return str(answer.read().decode())
    except OSError:
        return None


@contextlib.contextmanager
def running(command: list[str], folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The server, stopped at the end with all that it started."""
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([str(SCRIPTS / command[0]), *command[1:]], cwd=folder, **quiet)
    try:
        yield process
    finally:
        family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        process.send_signal(signal.SIGINT)
        _, left = psutil.wait_procs(family, timeout=5)
        for member in left:
            member.kill()
        process.wait()


def memory_mb(pid: int) -> float:
    """The proportional share of memory that the process and those below it have."""
    root = psutil.Process(pid)
    family = [root, *root.children(recursive=True)]
    return sum(member.memory_full_info().pss for member in family) / 2**20


def free_port() -> str:
    """A port that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return str(listener.getsockname()[1])


def report(ours: Measured, theirs: Measured) -> None:
    """Medians, and the ratios that have a bar."""
    rows = {"cold start": "cold_start", "save": "save", "save, stream open": "save_with_stream"}
    print(f"{'':<20}{'flowctl dev':>14}{'uvicorn':>14}")
    for name, attribute in rows.items():
        print(f"{name:<20}{ms(getattr(ours, attribute)):>14}{ms(getattr(theirs, attribute)):>14}")
    memory = [f"{statistics.median(measured.memory):.0f} MB" for measured in (ours, theirs)]
    print(f"{'memory':<20}{memory[0]:>14}{memory[1]:>14}   (bar {MOST_MB} MB, engine included)")
    print(f"{'failed requests':<20}{ours.failed:>14}{theirs.failed:>14}   (bar 0)")
    for name, bar in BARS.items():
        times = [statistics.median(getattr(measured, rows[name])) for measured in (ours, theirs)]
        print(f"{name}: ratio {times[0] / times[1]:.2f} (bar {bar})")


def ms(times: list[float]) -> str:
    """Their median."""
    return f"{statistics.median(times) * 1000:.0f} ms" if times else "not served"


if __name__ == "__main__":
    main()
