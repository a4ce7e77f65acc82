"""Throttles at the moment when runs start: a start that comes before its time is parked until then.

Called by `gates` and `executor`. How far each throttle is ahead is in the store, and so are the parked jobs,
which a new process leaves where they are, however many: it looks at their throttles at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heappop, heappush

from flowctl.engine import flow_statements as sql
from flowctl.engine.flow_control import Rate, Throttle, expected_at, opening, room_of
from flowctl.engine.meters import Meters
from flowctl.engine.store import Store


@dataclass(slots=True)
class Throttles:
    """Which throttles are waited at, and when each is to be looked at next."""

    store: Store
    meters: Meters = field(init=False)
    _rates: dict[str, Rate] = field(default_factory=dict[str, Rate])
    _openings: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    """A heap with one entry for each name in `_rates`."""

    def __post_init__(self) -> None:
        self.meters = Meters(self.store)
        for (stored,) in self.store.db.execute(sql.PARKED_THROTTLES).fetchall():
            throttle = Throttle.decoded(stored)
            self._look_again(throttle.name, throttle.rate, 0, now=0)

    @property
    def next_opening(self) -> int | None:
        """When the next throttle is to be looked at that is waited at."""
        return self._openings[0][0] if self._openings else None

    def admits(self, throttle: Throttle, *, now: int) -> bool:
        """Whether a run may start now, which is counted then; one that may not is to be parked."""
        name, rate = throttle.name, throttle.rate
        if self.meters.admits(name, rate, now=now):
            return True
        if name not in self._rates:
            self._look_again(name, rate, opening(self.meters.arrival(name) or now, rate), now)
        return False

    def unpark(self, *, now: int) -> None:
        """Make due again what may start now; called before jobs are taken, so that none overtakes it."""
        while self._openings and self._openings[0][0] <= now:
            self._unpark_at(self._openings[0][1], now)

    def _unpark_at(self, name: str, now: int) -> None:
        rate = self._rates[name]
        arrival = self.meters.arrival(name)
        room = room_of(arrival, rate, now=now)
        count = self.store.db.execute(sql.UNPARK_JOBS, (name, room, now)).rowcount
        still_waits = self.store.db.execute(sql.IS_WAITED_AT, (name,)).fetchone() is not None
        heappop(self._openings)  # only now: the database may have failed
        del self._rates[name]
        if still_waits:
            after = expected_at(arrival, rate, now=now) + count * rate.interval
            self._look_again(name, rate, opening(after, rate), now)

    def _look_again(self, name: str, rate: Rate, at: int, now: int) -> None:
        self._rates[name] = rate
        heappush(self._openings, (max(at, now + 1), name))
