"""A run as it happens, for people: a tree that is redrawn on a terminal, a line an event elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Generator, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from flowctl_cli.console import brief, cut, is_live, people, say, style
from flowctl_cli.run_view import RunView, StepView

if TYPE_CHECKING:
    from rich.live import Live
    from rich.text import Text

MARKS = {
    "pending": ("○", "dim"),
    "running": ("●", "cyan"),
    "waiting": ("…", "cyan"),
    "success": ("✓", "green"),
    "failed": ("✗", "red"),
    "suspended": ("⏸", "yellow"),
    "paused": ("⏸", "yellow"),
    "canceled": ("■", "yellow"),
    "skipped": ("-", "dim"),
}
FRAMES = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
REDRAW_SECONDS = 0.1
BAR = 16
NAME_WIDTH = 28
COUNT_ROOM = 4


class Progress(Protocol):
    """What shows a run."""

    def take(self, event: dict[str, Any]) -> None:
        """Show what an event says."""
        ...


@contextlib.asynccontextmanager
async def shown(view: RunView) -> AsyncGenerator[Progress]:
    """Show a run while the block lasts; its last line says how it stands then."""
    began = time.monotonic()
    if is_live():
        async with _redrawn(view) as tree:
            yield tree
    else:
        yield Lines(view)
    _say_end(view, time.monotonic() - began)


@dataclass(slots=True)
class Lines:
    """A line for everything that ends, is suspended, or waits."""

    view: RunView

    def take(self, event: dict[str, Any]) -> None:
        """Print what an event says, if it says something new."""
        step = self.view.take(event)
        if step is None:
            return
        match event["type"]:
            case "workflow-step-result" | "workflow-step-suspended" | "workflow-step-waiting":
                say(_line(step))
            case "workflow-step-output":
                say(f"    {style(brief(step.shown), 'dim')}")
            case "workflow-step-progress":
                say(f"    {style(f'{step.id} {step.done}/{step.total}', 'dim')}")
            case _:
                pass


@dataclass(slots=True)
class Tree:
    """The whole run as a tree; what has not begun is grey, the last line says what is awaited."""

    view: RunView
    began: float = field(default_factory=time.monotonic)
    ticks: int = 0
    is_told: bool = False

    def take(self, event: dict[str, Any]) -> None:
        """Take an event in; the next tick draws it."""
        self.is_told = True
        self.view.take(event)

    async def keep_drawing(self, live: Live) -> None:
        """Redraw some times a second."""
        while True:
            self.ticks += 1
            live.update(self.drawn(), refresh=True)
            await asyncio.sleep(REDRAW_SECONDS)

    def drawn(self, *, ended: bool = False) -> Any:
        """The tree as it is now; while it is redrawn it must fit the terminal."""
        from rich.console import Group  # noqa: PLC0415 - only live views need rich

        steps = list(self.view.steps.values())
        room = max(3, people().height - 4)
        shown = steps if ended else _fitting(steps, room)
        lines = [self._line(step, spins=not ended) for step in shown]
        return Group(*lines) if ended else Group(*lines, self._awaited())

    @property
    def _name_width(self) -> int:
        """Room for the longest name, within limits; some for a loop's count."""
        longest = max(
            (2 * step.depth + len(step.label or step.id) for step in self.view.steps.values()), default=0
        )
        return min(longest + COUNT_ROOM, NAME_WIDTH)

    def _line(self, step: StepView, *, spins: bool) -> Text:
        from rich.text import Text  # noqa: PLC0415 - as above

        mark, colour = MARKS.get(step.status, MARKS["running"])
        mark = FRAMES[self.ticks % len(FRAMES)] if spins and step.status == "running" else mark
        grey = "dim" if step.status == "pending" else ""
        name = cut(f"{'  ' * step.depth}{_name(step)}", self._name_width)
        line = Text(no_wrap=True, overflow="ellipsis")
        line.append(f"  {mark} ", style=colour).append(f"{name:<{self._name_width}} ", style=grey)
        line.append(f"{_time(step):>8}  ", style="dim")
        return line.append(_detail(step, bar=True), style="red" if step.status == "failed" else "dim")

    def _awaited(self) -> Text:
        from rich.text import Text  # noqa: PLC0415 - as above

        frame, seconds = FRAMES[self.ticks % len(FRAMES)], time.monotonic() - self.began
        line = Text(no_wrap=True, overflow="ellipsis")
        return line.append(f"{frame} ", style="cyan").append(
            f"{_awaits(self.view)}  {seconds:.1f} s", style="dim"
        )


@contextlib.asynccontextmanager
async def _redrawn(view: RunView) -> AsyncGenerator[Tree]:
    from rich.live import Live  # noqa: PLC0415 - plain output needs no rich

    with Live(console=people(), auto_refresh=False, redirect_stdout=False) as live:
        tree = Tree(view)
        drawing = asyncio.create_task(tree.keep_drawing(live))
        try:
            yield tree
        finally:
            drawing.cancel()
            live.transient = not tree.is_told  # a run that was refused leaves nothing behind
            live.update(tree.drawn(ended=True), refresh=True)


def print_tree(view: RunView) -> None:
    """A run as it stands, on stderr: its tree and its last line."""
    if is_live():
        people().print(Tree(view).drawn(ended=True))
    else:
        for step in view.steps.values():
            say(_line(step))
    _say_end(view, None)


@contextlib.contextmanager
def waiting(what: str) -> Generator[None]:
    """A spinner with what is awaited, on a terminal; a line elsewhere."""
    if not is_live():
        say(style(what, "dim"))
        yield
        return
    with people().status(what, spinner="dots", spinner_style="cyan"):
        yield


def _say_end(view: RunView, seconds: float | None) -> None:
    mark, colour = MARKS.get(view.status, MARKS["running"])
    took = "" if seconds is None else f" in {seconds:.2f} s"
    say(f"{style(mark, colour)} {view.workflow_id} {view.status}{took} {style(view.run_id, 'dim')}")


def _line(step: StepView) -> str:
    mark, colour = MARKS.get(step.status, MARKS["running"])
    took = style(f"{_time(step):>8}", "dim")
    return f"  {style(mark, colour)} {_name(step, full=True):<{NAME_WIDTH}} {took}  {_detail(step)}".rstrip()


def _fitting(steps: list[StepView], room: int) -> Iterator[StepView]:
    """As many steps as fit: first without those to come, then without the oldest."""
    if len(steps) > room:
        steps = [step for step in steps if step.status != "pending"] or steps[:room]
    yield from steps[-room:]


def _awaits(view: RunView) -> str:
    if not view.running:
        return "waiting for the first step" if _untouched(view) else "between steps"
    return ", ".join(_awaited_step(step) for step in view.running[:3])


def _untouched(view: RunView) -> bool:
    return all(step.status == "pending" for step in view.steps.values())


def _awaited_step(step: StepView) -> str:
    if step.until is None:
        return f"{step.id} runs"
    left = max(0.0, step.until / 1000 - time.time())
    return f"{step.id} sleeps, {_duration(left * 1000)} left"


def _name(step: StepView, *, full: bool = False) -> str:
    name = step.id if full else step.label or step.id
    return f"{name} #{step.iteration}" if step.iteration else name


def _time(step: StepView) -> str:
    took = step.took_ms
    if took is None and step.started_at is not None:
        took = max(0, int(time.time() * 1000) - step.started_at)
    return "" if took is None else _duration(took)


def _duration(milliseconds: float) -> str:
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms"
    if milliseconds < 60_000:
        return f"{milliseconds / 1000:.1f} s"
    minutes, seconds = divmod(int(milliseconds / 1000), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def _detail(step: StepView, *, bar: bool = False) -> str:
    parts: list[str] = []
    if step.retries:
        parts.append("1 retry" if step.retries == 1 else f"{step.retries} retries")
    if bar and step.total and step.status == "running":
        filled = BAR * step.done // step.total
        parts.append(f"{'━' * filled}{'╌' * (BAR - filled)} {step.done}/{step.total}")
    if step.status == "waiting" and step.until is not None:
        parts.append(f"until {datetime.fromtimestamp(step.until / 1000).astimezone():%H:%M:%S}")
    elif step.shown is not None:
        parts.append(brief(step.shown))
    return "  ".join(parts)
