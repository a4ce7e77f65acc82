"""The life of a served app: started once, by the server or by the first request, and stopped without waiting
for streams.

Called by `app`.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

from flowctl.server import logs
from flowctl.server.streams import OpenStreams

if TYPE_CHECKING:
    from flowctl.app import App

_STOPS = (signal.SIGINT, signal.SIGTERM)


class Life:
    """A context that is entered and left with the server; `ready` does for one that never enters it."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.streams = OpenStreams()
        self._lock = threading.Lock()
        self._begun = False
        self._handlers: dict[signal.Signals, tuple[Any, Any]] = {}

    async def __aenter__(self) -> Self:
        self.streams.reopen()
        self._watch_signals()
        await self.ready()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.streams.close()
        self._unwatch_signals()
        self._begun = False
        await self.app.stop()

    async def ready(self) -> None:
        """Start the app unless that was begun; raises StorageError, and is tried again then."""
        with self._lock:
            if self._begun:
                return
            self._begun = True
        try:
            if self.app.server.logs is not None:
                logs.configure(self.app.server.logs)
            await self.app.start()
        except BaseException:
            self._begun = False
            raise

    def _watch_signals(self) -> None:
        """End open streams as soon as the server is told to stop: it waits for responses before lifespans."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in _STOPS:
            before = signal.getsignal(number)
            if callable(before):
                handler = _after(self.streams.close, before)
                signal.signal(number, handler)
                self._handlers[number] = (handler, before)

    def _unwatch_signals(self) -> None:
        for number, (ours, before) in self._handlers.items():
            if signal.getsignal(number) is ours:
                signal.signal(number, before)
        self._handlers.clear()


def _after(
    first: Callable[[], None], then: Callable[[int, FrameType | None], Any]
) -> Callable[[int, FrameType | None], None]:
    def handler(number: int, frame: FrameType | None) -> None:
        first()
        then(number, frame)

    return handler
