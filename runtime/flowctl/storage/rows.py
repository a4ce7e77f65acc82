"""What rows of runs and records mean: objects to work with, or JSON to show. Called by `storage.sql`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from flowctl.snapshot import RunError, Snapshot, StepResult, StoredRun

Row = Sequence[Any]
"""workflow_id, run_id, resource_id, status, created_at, updated_at, leg, base, header."""
Record = tuple[str, str | None]
"""A record's key, and its JSON; None or null where it was forgotten."""


def stored_run(row: Row, records: Sequence[Record]) -> StoredRun:
    """A run with its records."""
    workflow_id, run_id, resource_id, status, created_at, updated_at, leg, base, header = row
    stored = {**orjson.loads(base or "{}"), **orjson.loads(header)}
    snapshot = Snapshot.from_json({**stored, "runId": run_id, "status": status})
    known = ((key, orjson.loads(body)) for key, body in records if body is not None)
    snapshot.records = {key: StepResult.from_json(record) for key, record in known if record is not None}
    return StoredRun(workflow_id, run_id, resource_id, _iso(created_at), _iso(updated_at), snapshot, leg)


def listed_run(row: Row, records: Sequence[Record]) -> dict[str, Any]:
    """As `StoredRun.to_json`, for `orjson.dumps`: records are passed on as they are stored."""
    workflow_id, run_id, resource_id, status, created_at, updated_at, _, base, header = row
    snapshot = {**orjson.loads(base or "{}"), **orjson.loads(header), "runId": run_id, "status": status}
    snapshot["context"] |= {key: _shown(body) for key, body in records if body not in {None, "null"}}
    if "error" in snapshot:
        snapshot["error"] = RunError.from_json(snapshot["error"]).to_json()
    return {
        "workflowName": workflow_id,
        "runId": run_id,
        "snapshot": snapshot,
        "resourceId": resource_id,
        "createdAt": _iso(created_at),
        "updatedAt": _iso(updated_at),
    }


def _shown(body: str | None) -> Any:
    """A record without the traceback that its error may have."""
    if body is not None and '"stack":' in body:
        return StepResult.from_json(orjson.loads(body)).to_json()
    return orjson.Fragment(body or "null")


def _iso(millis: int) -> str:
    return (
        datetime.fromtimestamp(millis / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )
