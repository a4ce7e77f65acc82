"""What rows of runs and records hold, and what they mean: objects to work with, or JSON to show.

Called by `storage.sql`, and by `storage.memory` for whoever reads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from flowctl.events import WorkflowEvent
from flowctl.snapshot import RunError, Snapshot, StepResult, is_own_step
from flowctl.stored_run import StoredRun

Row = Sequence[Any]
"""workflow_id, run_id, resource_id, status, created_at, updated_at, leg, base, header."""
Record = tuple[str, str | None]
"""A record's key, and its JSON; None or null where it was forgotten."""
_UNCHANGING = ("context", "serializedStepGraph")


def base_of(snapshot: Snapshot) -> str:
    """What stays as it is during a leg, as JSON."""
    shown = snapshot.header_json(stack=True)
    return dump({name: shown[name] for name in _UNCHANGING})


def header_of(snapshot: Snapshot) -> str:
    """What each commit writes, as JSON."""
    shown = snapshot.header_json(stack=True)
    return dump({name: value for name, value in shown.items() if name not in _UNCHANGING})


def body_of(record: StepResult) -> str:
    """A record as JSON, with the traceback that its error may have."""
    return dump(record.to_json(stack=True))


def event_from(body: str) -> WorkflowEvent:
    """An event of its JSON."""
    return WorkflowEvent.from_json(orjson.loads(body))


def snapshot_from(given: Mapping[str, Any] | Snapshot, run_id: str) -> Snapshot:
    """A snapshot, which may be given as its JSON form."""
    return given if isinstance(given, Snapshot) else Snapshot.from_json({"runId": run_id, **given})


def dump(value: Any) -> str:
    """JSON data as text."""
    return orjson.dumps(value).decode()


def dump_or_none(value: Any) -> str | None:
    """JSON data as text, or None for none."""
    return None if value is None else dump(value)


def created_run(workflow_id: str, resource_id: str | None, snapshot: Snapshot, now: int) -> StoredRun:
    """A run that was stored at this moment (epoch ms), and so is as it was given."""
    return StoredRun(workflow_id, snapshot.run_id, resource_id, _iso(now), _iso(now), snapshot)


def stored_run(row: Row, records: Sequence[Record], *, whole: bool = True) -> StoredRun:
    """A run with its records; unless `whole`, without those below a record that succeeded."""
    workflow_id, run_id, resource_id, status, created_at, updated_at, leg, base, header = row
    stored = {**orjson.loads(base or "{}"), **orjson.loads(header)}
    snapshot = Snapshot.from_json({**stored, "runId": run_id, "status": status})
    snapshot.records = _read_records(records, whole=whole)
    return StoredRun(workflow_id, run_id, resource_id, _iso(created_at), _iso(updated_at), snapshot, leg)


def shown_run(row: Row, records: Sequence[Record]) -> StoredRun:
    """A run as it is shown; its row has one more column for that, `shown`."""
    *as_it_stands, shown = row
    return stored_run(as_it_stands, records) if shown is None else StoredRun.from_json(orjson.loads(shown))


def _read_records(rows: Sequence[Record], *, whole: bool) -> dict[str, StepResult]:
    """Records by key. What lies below a record comes after it."""
    read, closed = dict[str, StepResult](), set[str]()
    for key, body in rows:
        if not whole and key.rpartition("/")[0] in closed:
            closed.add(key)
            continue
        record = None if body is None else orjson.loads(body)
        if record is not None:
            read[key] = StepResult.from_json(record)
            if record["status"] == "success":
                closed.add(key)
    return read


def listed_run(row: Row, records: Sequence[Record]) -> dict[str, Any]:
    """As `shown_run(…).to_json`, for `orjson.dumps`: records are passed on as they are stored."""
    workflow_id, run_id, resource_id, status, created_at, updated_at, _, base, header, shown = row
    if shown is not None:
        return orjson.loads(shown)
    snapshot = {**orjson.loads(base or "{}"), **orjson.loads(header), "runId": run_id, "status": status}
    given = {key: value for key, value in snapshot["context"].items() if value is not None}
    snapshot["context"] = given | {key: _shown(b) for key, b in records if b not in {None, "null"}}
    snapshot["activeStepsPath"] = {key: snapshot["activePaths"] for key, body in records if _runs(key, body)}
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


def _runs(key: str, body: str | None) -> bool:
    """Whether it is the record of a step of the workflow's own that is running."""
    return body is not None and body.startswith('{"status":"running"') and is_own_step(key)


def _shown(body: str | None) -> Any:
    """A record without the traceback that its error may have."""
    if body is not None and '"stack":' in body:
        return StepResult.from_json(orjson.loads(body)).to_json()
    return orjson.Fragment(body or "null")


def _iso(millis: int) -> str:
    return (
        datetime.fromtimestamp(millis / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )
