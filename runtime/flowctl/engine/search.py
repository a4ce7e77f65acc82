"""The search for runs and events by expressions, as GraphQL's `query` has it: one a line, all must hold.

Called by `connections`: the expressions are a function of SQL, so pages and counts are of what is found. All
rows of the time span are looked at.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

import orjson

from flowctl.engine.expressions import compiled, holds

RUN_MATCHES = " AND matches(coalesce(events, event), output, status)"
EVENT_MATCHES = " AND matches(body, NULL, NULL)"


def prepare(db: sqlite3.Connection, query: str) -> None:
    """Have `matches` mean this query; raises InvalidExpressionError."""
    lines = [line.strip() for line in query.splitlines() if line.strip()]
    for line in lines:
        compiled(line)

    def matches(events: bytes, output: bytes | None, status: str | None) -> bool:
        return _matches(lines, orjson.loads(events), orjson.loads(output or b"null"), status)

    db.create_function("matches", 3, matches)


def _matches(lines: Sequence[str], events: Any, output: Any, status: str | None) -> bool:
    """Whether all lines hold for one of a run's events; a failed run's output is its `error` as well."""
    error = output if status == "Failed" else None
    return any(
        all(holds(line, {"event": event, "output": output, "error": error}) for line in lines)
        for event in (events if isinstance(events, list) else [events])
    )
