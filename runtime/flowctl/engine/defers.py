"""Deferred runs: functions that a run asks to be started once it has ended, however it ends.

Called by `ledger` inside its transactions. A request that is unfit is noted as rejected: its run goes on, and
the SDK does not ask again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from flowctl.engine import statements as sql
from flowctl.engine.ends import made
from flowctl.engine.protocol import DEFERRED, RESERVED, Event, InvalidEventError
from flowctl.engine.store import RunRow, Store
from flowctl.engine.turn import AbortDefer, Defer

MAX_DEFERS, MAX_INPUT_BYTES, MAX_META_BYTES = 20, 4 * 2**20, 32 * 2**10
WAITING, ABORTED, REJECTED = "waiting", "aborted", "rejected"


@dataclass(frozen=True, slots=True)
class Defers:
    """What the runs of a store have asked for."""

    store: Store

    def note(self, run_id: str, asked: Defer | AbortDefer) -> None:
        """Keep a request, or take one back."""
        if isinstance(asked, Defer):
            self._add(run_id, asked)
        else:
            self.store.db.execute(sql.ABORT_DEFER, (ABORTED, run_id, asked.step_id, WAITING))

    def _add(self, run_id: str, asked: Defer) -> None:
        """The same request again changes nothing, one above the most is passed over."""
        count, size = self.store.db.execute(sql.COUNT_DEFERS, (run_id,)).fetchone()
        if count >= MAX_DEFERS:
            return
        is_kept = is_fit(asked, room=MAX_INPUT_BYTES - size)
        body = orjson.dumps({"input": asked.input, "meta": asked.meta} if is_kept else {})
        row = (run_id, asked.step_id, asked.slug, body, WAITING if is_kept else REJECTED)
        self.store.db.execute(sql.PUT_DEFER, row)

    def take(self, run: RunRow, app_id: str, *, now: int) -> Iterator[Event]:
        """The events that start what an ended run has asked for, which is forgotten."""
        for slug, body, status in self.store.db.execute(sql.TAKE_DEFERS, (run.run_id,)).fetchall():
            if status == WAITING and (event := _event(run, app_id, slug, orjson.loads(body), now)):
                yield event


def is_fit(asked: Defer, *, room: int) -> bool:
    """Whether a request has a function, an object as input that fits in `room` bytes, and a small `meta`."""
    sizes_fit = len(orjson.dumps(asked.input)) <= room and len(orjson.dumps(asked.meta)) <= MAX_META_BYTES
    is_object = isinstance(asked.input, Mapping) and isinstance(asked.meta, Mapping | None)
    return bool(asked.slug) and is_object and sizes_fit


def _event(run: RunRow, app_id: str, slug: str, kept: Mapping[str, Any], now: int) -> Event | None:
    parent = {
        "parent_app_id": app_id,
        "parent_fn_id": run.function_id,
        "parent_fn_slug": run.slug,
        "parent_run_id": run.run_id,
    }
    data = {**kept["input"], RESERVED: {"fn_slug": slug, **parent}}
    try:
        return made(DEFERRED, data, now, meta=kept["meta"])
    except InvalidEventError:  # sessions that only turn out to be too many once they are joined
        return None
