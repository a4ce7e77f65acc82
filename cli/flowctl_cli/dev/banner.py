"""What `flowctl dev` says: what it serves and where, what a reload did, what is wrong."""

from __future__ import annotations

import sys
import threading
import time
import webbrowser
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flowctl_cli.console import say, style
from flowctl_cli.dev.engine import DevEngine
from flowctl_cli.dev.report import ErrorReport
from flowctl_cli.dev.sockets import Sockets

NAMES_SHOWN = 3
STEPS_OF_A_PULL = ("Pulling from", "Pull complete", "Status")
LOOPBACK = {"localhost", "127.0.0.1", "::1"}


def announce(
    facts: Mapping[str, Any],
    sockets: Sockets,
    engine: DevEngine,
    *,
    authority: Path | None,
    debug_port: int | None,
    seconds: float,
) -> None:
    """The first lines: what is served, where it was found, and where it is reached."""
    say(f"{style('flowctl dev', 'bold')}  app {facts.get('app')} (from {facts.get('source')})")
    for kind in ("workflows", "functions"):
        if facts.get(kind):
            say(f"  {kind:<10} {', '.join(facts[kind])}")
    say(f"  {'server':<10} {sockets.url}")
    if not facts.get("inngest"):
        say(f"  {'engine':<10} none: the app has no Inngest client, its workflows run in the server")
    else:
        state = "" if engine.up.is_set() else ", starting"
        say(f"  {'engine':<10} {engine.url} ({engine.choice.why}{state})")
    if facts.get("environment"):
        say(f"  {'settings':<10} {', '.join(facts['environment'])}")
    if authority is not None:
        say(f"  {'https':<10} signed by {authority}: have your browser trust that once")
    if debug_port is not None:
        say(f"  {'debugger':<10} attach to 127.0.0.1:{debug_port}")
    say(style(f"  ready in {seconds:.2f} s; Ctrl-C stops", "dim"))


def reloaded(changed: Sequence[Path], seconds: float) -> str:
    """One line a reload, in line with the log of requests."""
    return style(f"{time.strftime('%H:%M:%S')}  reloaded {names(changed)} in {seconds * 1000:.0f} ms", "dim")


def failed(report: ErrorReport, changed: Sequence[Path], *, is_served: bool, repeated: bool) -> str:
    """What is wrong, whole the first time."""
    kept = "the last good version goes on serving" if is_served else "waiting for a change"
    subject = names(changed) or "The app"
    if repeated:
        return style(f"{subject}: still {report.place or report.type}; {kept}.", "yellow")
    told = style(f"{subject} could not be loaded; {kept}.", "yellow")
    return f"{style('✗', 'red')} {report.to_text()}\n{told}"


def names(files: Sequence[Path]) -> str:
    """Some file names."""
    shown = ", ".join(dict.fromkeys(file.name for file in files[:NAMES_SHOWN]))
    return f"{shown} and {len(files) - NAMES_SHOWN} more" if len(files) > NAMES_SHOWN else shown


def other_engines(urls: Iterable[str], engine: str) -> set[str]:
    """Those of a client's URLs that are not the engine's."""
    return {url for url in urls if _address(url) != _address(engine)}


def points_elsewhere(url: str, engine: str) -> str:
    """The warning for a client that was pointed somewhere in the code."""
    return (
        f"The app's Inngest client uses {url}, but the engine of this dev server is {engine}: its events go "
        "there. Leave its URLs out, so that `flowctl dev` can set them, or use --engine with that URL."
    )


def open_browser(url: str) -> None:
    """Show the app in a browser, where there is one; some run as long as their window is open."""
    threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()


@dataclass(slots=True)
class EngineLog:
    """What the engine's worker tells: lines of its log, the pull of its image."""

    bars: Any = None
    layers: dict[str, Any] = field(default_factory=dict[str, Any])

    def hear(self, message: Mapping[str, Any]) -> None:
        """Show one message."""
        if "line" in message:
            say(f"{style('engine │', 'dim')} {message['line']}")
        if "instead" in message:
            say(style(f"Using another engine instead: {message['instead']}.", "yellow"))
        if "pull" in message:
            self._pulled(message["pull"])

    def _pulled(self, progress: Mapping[str, Any] | None) -> None:
        if sys.stderr.isatty():
            self._draw(progress)
        elif progress and progress["status"].startswith(STEPS_OF_A_PULL):
            say(f"{style('engine │', 'dim')} {progress['layer']} {progress['status']}".strip())

    def _draw(self, progress: Mapping[str, Any] | None) -> None:
        """A bar a layer, on a terminal."""
        from rich.console import Console  # noqa: PLC0415 - only a pull draws bars
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn  # noqa: PLC0415 - as above

        if progress is None:
            if self.bars is not None:
                self.bars.stop()
            self.bars, self.layers = None, {}
            return
        if self.bars is None:
            columns = (TextColumn("{task.description:<28}"), BarColumn(), DownloadColumn())
            self.bars = Progress(*columns, console=Console(stderr=True))
            self.bars.start()
        layer = progress["layer"]
        if layer not in self.layers:
            self.layers[layer] = self.bars.add_task(layer, total=None)
        known = {"completed": progress["current"], "total": progress["total"]} if progress["total"] else {}
        self.bars.update(self.layers[layer], description=f"{layer} {progress['status']}", **known)


def _address(url: str) -> tuple[str, int | None]:
    parts = urlsplit(url)
    host = parts.hostname or ""
    return "loopback" if host in LOOPBACK else host, parts.port
