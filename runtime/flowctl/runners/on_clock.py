"""Has what inngest-py takes from the wall's time come from an app's clock, so that tests may skip sleeps.

Called by `testing` for the client of an embedded engine that has the same clock.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import inngest

from flowctl.clock import Clock


def on_clock(clock: Clock) -> Callable[[inngest.Inngest, object], inngest.MiddlewareSync]:
    """A middleware of a client."""

    class OnClock(inngest.MiddlewareSync):
        """Stamps events, and has sleeps begin, by the clock."""

        def before_send_events(self, events: list[inngest.Event]) -> None:
            """Events without a time are of now."""
            for event in events:
                event.ts = event.ts or clock.now()

        def transform_input(
            self, ctx: inngest.Context | inngest.ContextSync, function: Any, steps: Any
        ) -> None:
            """A sleep for a while is one until then."""
            del function, steps
            sleep_until: Any = ctx.step.sleep_until

            def sleep(step_id: str, duration: int | timedelta) -> Any:
                span = duration if isinstance(duration, timedelta) else timedelta(milliseconds=duration)
                return sleep_until(step_id, datetime.fromtimestamp(clock.now() / 1000, UTC) + span)

            ctx.step.sleep = sleep

    return OnClock
