"""Who waits for an event: steps that end with it, and runs that it cancels.

Called by `ledger` and `starts` inside their transactions. A run is cancelled by the rules that its function
had when it began.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from flowctl.engine import statements as sql
from flowctl.engine.expressions import holds
from flowctl.engine.matching import key_at, key_of
from flowctl.engine.protocol import Event, Function, duration_ms
from flowctl.engine.store import RunRow, Store


@dataclass(frozen=True, slots=True)
class Waits:
    """Found by what they need of an event, so that its cost does not grow with how many wait."""

    store: Store

    def note_cancels(self, run_id: str, function: Function, event: Mapping[str, Any]) -> None:
        """Remember which events cancel a run that begins with an event."""
        for rule in function.cancels:
            condition = rule.get("if")
            known = (run_id, rule.get("event"), condition, rule.get("timeout"), *key_of(condition, event))
            self.store.db.execute(sql.PUT_CANCEL, known)

    def steps_met_by(self, event: Event, data: Mapping[str, Any]) -> list[tuple[str, str]]:
        """The run ids and step ids that waited for an event."""
        rows = self._found(sql.WAITED_PATHS, sql.WAITS_FOR_EVENT, event.name, data)
        return [
            (run_id, step_id)
            for run_id, step_id, condition, begun_by in rows
            if holds(condition, {"event": orjson.loads(begun_by), "async": data})
        ]

    def runs_cancelled_by(self, event: Event, data: Mapping[str, Any]) -> list[RunRow]:
        """The runs that an event cancels, unless it comes too late."""
        rows = self._found(sql.CANCELLING_PATHS, sql.CANCELLED_BY, event.name, data)
        return [
            run
            for run_id, condition, timeout in rows
            if (run := self.store.run(run_id))
            and (not timeout or event.received_at <= run.started_at + duration_ms(timeout))
            and holds(condition, {"event": run.event, "async": data})
        ]

    def _found(self, paths: str, rows: str, name: str, data: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Those whose condition the event may meet."""
        known = self.store.db.execute(paths, (name,)).fetchall()
        keys = [key_at(path, data) for (path,) in known]
        return [row for key in keys for row in self.store.db.execute(rows, (name, *key)).fetchall()]
