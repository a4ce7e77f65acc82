"""What people see of a snapshot: settled, without items, without tracebacks, or some fields of it alone."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any

from flowctl.snapshot import RunError, Snapshot, StepResult, camel


def settled(snapshot: Snapshot) -> Snapshot:
    """A snapshot whose steps do not seem to run when the run was canceled."""
    if snapshot.status != "canceled":
        return snapshot
    in_flight = {"running", "waiting"}
    records = {
        key: replace(record, status="canceled") if record.status in in_flight else record
        for key, record in snapshot.records.items()
    }
    return replace(snapshot, records=records)


def shown(snapshot: Snapshot, *, nested: bool) -> Snapshot:
    """A stored run as people look at it: nested steps as `outer.inner`, no items.

    What has a suspended step inside is shown as running: only the step itself waits.
    """
    records = settled(snapshot).records
    around = {outer for key, r in records.items() if r.status == "suspended" for outer in _around(key)}
    kept = {
        key.replace("/", "."): _running(record) if nested and key in around else record
        for key, record in records.items()
        if not key.endswith("]") and (nested or "/" not in key)
    }
    return replace(snapshot, records=kept)


def untraced(snapshot: Snapshot) -> Snapshot:
    """A snapshot whose errors have no traceback."""
    records = {key: replace(r, error=_plain(r.error)) for key, r in snapshot.records.items()}
    return replace(snapshot, records=records, error=_plain(snapshot.error))


_OPTIONAL = {
    "steps": "records",
    "input": "input",
    "payload": "input",
    "state": "state",
    "initial_state": "state",
    "result": "result",
    "error": "error",
    "request_context": "request_context",
    "serialized_step_graph": "serialized_step_graph",
    "step_execution_path": "step_execution_path",
    "suspended_paths": "suspended_paths",
    "resume_labels": "resume_labels",
}


def picked(snapshot: Snapshot, fields: Collection[str]) -> Snapshot:
    """A snapshot with its status and these fields only; raises ValueError naming those there are."""
    known = _OPTIONAL | {camel(name): kept for name, kept in _OPTIONAL.items()} | {"status": "status"}
    unknown = [name for name in fields if name not in known]
    if unknown:
        raise ValueError(f"A run has no field {unknown[0]!r}. There are: status, {', '.join(_OPTIONAL)}.")
    kept: dict[str, Any] = {known[name]: getattr(snapshot, known[name]) for name in fields}
    return replace(Snapshot(snapshot.run_id, snapshot.status), **kept)


def _around(key: str) -> Iterator[str]:
    """The records that a nested record lies in: `a` and `a/b` for `a/b/c`."""
    while "/" in key:
        key = key.rpartition("/")[0]
        yield key
        if key.endswith("]"):
            yield key.rpartition("[")[0]


def _running(record: StepResult) -> StepResult:
    return replace(record, status="running") if record.status == "suspended" else record


def _plain(error: RunError | None) -> RunError | None:
    return error.without_stack() if error else None
