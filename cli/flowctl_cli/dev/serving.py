"""The worker that serves, and those before it that finish what they began. Used by `dev.supervisor`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from flowctl_cli.console import say, style
from flowctl_cli.dev.workers import Worker

STOP_SECONDS = 10.0
DRAIN_SECONDS = 3600.0
APP_END_SECONDS = 10.0
MOST_DRAINING = 8
MENTION_SECONDS = 2.0
BACKOFF_SECONDS = (0.0, 0.5, 1.0, 2.0, 5.0)
STABLE_SECONDS = 10.0


@dataclass(slots=True)
class Backoff:
    """Waits before something that died is started again: the longer, the more often that happened lately."""

    _deaths: list[float] = field(default_factory=list[float])

    async def wait(self) -> None:
        """Note a death, and wait as long as is fit."""
        now = time.monotonic()
        self._deaths = [*(at for at in self._deaths if now - at < STABLE_SECONDS), now]
        await asyncio.sleep(BACKOFF_SECONDS[min(len(self._deaths), len(BACKOFF_SECONDS)) - 1])


@dataclass(slots=True)
class Serving:
    """One worker takes what is new; those it replaced drain.

    `spawn` runs something beside, `on_death` asks for another worker.
    """

    spawn: Callable[[Coroutine[Any, Any, None]], object]
    on_death: Callable[[], None]
    stopping: asyncio.Event
    backoff: Backoff
    worker: Worker | None = None
    draining: list[Worker] = field(default_factory=list[Worker])
    _slow_at: str = ""

    @property
    def workers(self) -> list[Worker]:
        """All that there are."""
        return [*self.draining, *([self.worker] if self.worker else [])]

    async def take_over(self, worker: Worker) -> None:
        """Have this one serve from now on, and the one before finish what it began."""
        old, self.worker = self.worker, worker
        self.spawn(self._mind(worker))
        if old is not None:
            self.spawn(self._drained(old))
            await old.until_released()

    def hear(self, message: dict[str, Any]) -> None:
        """A worker that was replaced left a local run: the one that serves now goes on with it.

        Or one says where its import is that takes long.
        """
        if message.get("slow") and message["slow"] != self._slow_at:
            self._slow_at = message["slow"]
            say(style(f"The app takes long to load: its import is at {self._slow_at}.", "yellow"))
        if "left" in message and self.worker is not None and not self.stopping.is_set():
            self.worker.tell(do="take-over")

    async def end(self) -> None:
        """Have all finish what is under way, for some seconds at most."""
        workers = self.workers
        for worker in self.draining:
            asyncio.get_running_loop().call_later(STOP_SECONDS, partial(worker.tell, do="end"))
        if self.worker is not None:
            await self.worker.finish(seconds=STOP_SECONDS, successor=False)
        if unfinished := " and ".join(filter(None, (worker.unfinished for worker in workers))):
            say(style(f"finishing {unfinished}; Ctrl-C again ends them", "dim"))
        await asyncio.gather(*(worker.end(within=STOP_SECONDS + APP_END_SECONDS) for worker in workers))

    async def _drained(self, old: Worker) -> None:
        """Let a replaced worker do what it began, be that long, and say so; local runs it leaves early."""
        self.draining.append(old)
        await old.finish(seconds=DRAIN_SECONDS, successor=True)
        if len(self.draining) > MOST_DRAINING:
            _cut(self.draining[0])
        mention = asyncio.get_running_loop().call_later(MENTION_SECONDS, _mention, old)
        await old.end(within=DRAIN_SECONDS + APP_END_SECONDS)
        mention.cancel()
        self.draining.remove(old)
        self.hear({"left": True})

    async def _mind(self, worker: Worker) -> None:
        """Have the worker replaced when it dies by itself."""
        await worker.gone.wait()
        if worker is not self.worker or self.stopping.is_set():
            return
        say(style(f"The worker died{worker.how_it_ended}; starting another one.", "yellow"))
        await self.backoff.wait()
        if worker is self.worker:
            self.worker = None
            self.on_death()


def _mention(old: Worker) -> None:
    if old.unfinished:
        say(style(f"the version before goes on with what it began: {old.unfinished}", "dim"))


def _cut(oldest: Worker) -> None:
    if oldest.unfinished:
        say(
            style(
                f"More than {MOST_DRAINING} earlier versions are at work: ending the oldest, with "
                f"{oldest.unfinished}. Steps that it did not finish run again.",
                "yellow",
            )
        )
    oldest.tell(do="end")
