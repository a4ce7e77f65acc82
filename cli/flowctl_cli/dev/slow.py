"""Says where an app is while its import takes long: it may hang there. Used by `dev.app_worker`."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Generator
from pathlib import Path
from types import FrameType

from flowctl_cli.dev.report import is_users

SLOW_SECONDS = 3.0


@contextlib.contextmanager
def watched(root: Path, tell: Callable[[str], None]) -> Generator[None]:
    """Tell the place in the user's files, `file:line`, every few seconds until the block ends."""

    def tell_place(number: int, frame: FrameType | None) -> None:
        del number
        tell(_place(frame, root))

    before = signal.signal(signal.SIGALRM, tell_place)
    signal.setitimer(signal.ITIMER_REAL, SLOW_SECONDS, SLOW_SECONDS)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGALRM) is tell_place:  # else the app has an alarm of its own now
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def _place(frame: FrameType | None, root: Path) -> str:
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        if is_users(file, root):
            return f"{file.relative_to(root)}:{frame.f_lineno}"
        frame = frame.f_back
    return ""
