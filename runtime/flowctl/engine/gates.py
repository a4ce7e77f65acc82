"""Limits at the moment when jobs are taken: a job that finds a gate full or comes too early is parked.

Called by `executor`. What requests hold lives in memory, as they do; the parked jobs are in the store, and a
new process, which begins with nothing inside, leaves them where they are: it lets in as many as there is room
for. A limit of runs is counted in the store: a run keeps its place from its first request to its end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from flowctl.engine import flow_statements as sql
from flowctl.engine.flow_control import RUN_SCOPE, Throttle, full_gate
from flowctl.engine.store import Job, Store
from flowctl.engine.throttles import Throttles

SCAN_MS = 1000


@dataclass(slots=True)
class Gates:
    """Who is inside, and where others wait."""

    store: Store
    throttles: Throttles = field(init=False)
    held: Counter[str] = field(default_factory=Counter[str])
    _inside: dict[int, list[tuple[str, int]]] = field(default_factory=dict[int, list[tuple[str, int]]])
    _waited_at: dict[str, int] = field(default_factory=dict[str, int])
    _freed: set[str] = field(default_factory=set[str])
    _scanned_at: int = 0

    def __post_init__(self) -> None:
        self.throttles = Throttles(self.store)
        for name, gates in self.store.db.execute(sql.PARKED_GATES).fetchall():
            self._waited_at[name] = dict(orjson.loads(gates))[name]

    def enter(self, job: Job, *, now: int) -> bool:
        """Let a job in, or park it."""
        row = self.store.db.execute(sql.RUN_GATES, (job.run_id,)).fetchone()
        if row is None or row == (None, None):
            return True
        gates: list[tuple[str, int]] = [(name, limit) for name, limit in orjson.loads(row[0] or b"[]")]
        of_runs = [name for name, _ in gates if _is_of_runs(name)]
        full = full_gate(gates, self._held_by_others(of_runs, job.run_id))
        if full is not None:
            self._waited_at[full] = dict(gates)[full]
            return self._park(job, full, gates)
        throttle = Throttle.decoded(row[1]) if row[1] is not None else None
        if throttle is not None and not self.throttles.admits(throttle, now=now):
            return self._park(job, throttle.name, gates)
        self._let_in(job, [gate for gate in gates if gate[0] not in of_runs], of_runs)
        return True

    def _park(self, job: Job, at: str, gates: Sequence[tuple[str, int]]) -> bool:
        self.store.db.execute(sql.PARK_JOB, (at, job.id))
        self._freed.update(name for name, _ in gates if name != at)
        return False

    def _held_by_others(self, of_runs: Sequence[str], run_id: str) -> Mapping[str, int]:
        return (
            {**self.held, **{name: self._places(name, run_id) for name in of_runs}} if of_runs else self.held
        )

    def _places(self, name: str, run_id: str = "") -> int:
        """How many runs have a place at a gate, 0 for one of them."""
        return self.store.db.execute(sql.OTHERS_PLACES, (name, run_id)).fetchone()[0]

    def _let_in(self, job: Job, gates: list[tuple[str, int]], of_runs: Sequence[str]) -> None:
        self._inside[job.id] = gates
        self.held.update(name for name, _ in gates)
        for name in of_runs:
            self.store.db.execute(sql.TAKE_PLACE, (name, job.run_id))

    def is_waited_for(self, job: Job) -> bool:
        """Whether another job waits at a gate that this one is inside of."""
        return any(name in self._waited_at for name, _ in self._inside.get(job.id, ()))

    def leave(self, job: Job) -> None:
        """A job's request is over."""
        for name, _ in self._inside.pop(job.id, ()):
            self.held[name] -= 1
            if self.held[name] <= 0:
                del self.held[name]
            self._freed.add(name)

    def unpark(self, *, now: int, idle: bool) -> bool:
        """Make due again what may pass now; True when something may.

        Every waited-at gate is looked at once a second and when nothing else is to do, since a job that was
        let go may have been deleted with its run before it entered.
        """
        names = self._freed & self._waited_at.keys()
        self._freed = set()
        if idle or now - self._scanned_at >= SCAN_MS:
            names, self._scanned_at = set(self._waited_at), now
        return sum(self._unpark_at(name) for name in names) > 0

    def _unpark_at(self, name: str) -> int:
        held = self._places(name) if _is_of_runs(name) else self.held.get(name, 0)
        room = self._waited_at[name] - held
        if room <= 0:
            return 0
        count = self.store.db.execute(sql.UNPARK_JOBS, (name, room, 0)).rowcount
        if count < room:
            del self._waited_at[name]
        return count


def _is_of_runs(name: str) -> bool:
    return name.startswith(f"{RUN_SCOPE}/")
