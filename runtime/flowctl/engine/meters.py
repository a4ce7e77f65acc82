"""How far ahead of the clock each rate is (its theoretical arrival time), kept in the store.

Called by `starts` for rate limits, when events come in, and by `throttles` when runs start.
"""

from __future__ import annotations

from dataclasses import dataclass

from flowctl.engine import flow_statements as sql
from flowctl.engine.flow_control import Rate, Throttle, admitted
from flowctl.engine.store import Store


@dataclass(frozen=True, slots=True)
class Meters:
    """Those of a store, by name."""

    store: Store

    def arrival(self, name: str) -> float | None:
        """Where one stands, in epoch milliseconds; None for one that was never used or is forgotten."""
        row = self.store.db.execute(sql.READ_METER, (name,)).fetchone()
        return row[0] if row else None

    def admits(self, name: str, rate: Rate, *, now: int) -> bool:
        """Whether one more start is within the rate; counts it when it is."""
        arrival = admitted(self.arrival(name), rate, now=now)
        if arrival is not None:
            self.store.db.execute(sql.PUT_METER, (name, arrival, round(arrival)))
        return arrival is not None

    def give_back(self, throttle: Throttle) -> None:
        """Take back the count of a start that did not come about."""
        self.store.db.execute(sql.GIVE_BACK, (throttle.name, throttle.rate.interval))
