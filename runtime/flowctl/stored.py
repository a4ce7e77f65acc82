"""What is stored of a run, as callers need it: their result, its detail, or an interrupted run as a whole."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from typing_extensions import TypeVar

from flowctl.execution.paths import leaf_paths, without_meta
from flowctl.result import RunResult
from flowctl.schema import parse_leniently
from flowctl.snapshot import RunError, Snapshot
from flowctl.storage.base import Storage
from flowctl.stored_run import StoredRun
from flowctl.views import settled, shown

if TYPE_CHECKING:
    from flowctl.workflow import Workflow

Out = TypeVar("Out", default=Any)


async def with_nested_rows(storage: Storage, workflow: Workflow[Any, Any], snapshot: Snapshot) -> Snapshot:
    """An interrupted run with the records of nested workflows that were stored as rows of their own.

    Runs of flowctl keep nested records with their parent's; snapshots that come from elsewhere have a row for
    each nested workflow, under the same run id.
    """
    records = dict(snapshot.records)
    for nested in workflow.nested:
        key = nested.id
        if key not in records or any(known.startswith(f"{key}/") for known in records):
            continue
        own = await storage.get_run(nested.id, snapshot.run_id)
        if own is not None:
            inner = await with_nested_rows(storage, nested, own.snapshot)
            records |= {f"{key}/{id}": record for id, record in inner.records.items()}
    return replace(snapshot, records=records)


async def in_detail(
    storage: Storage, workflow_id: str, run_id: str, *, nested: bool = True
) -> StoredRun | None:
    """One run as it is shown to people, with the tracebacks of its errors; None when there is none."""
    run = await storage.get_shown_run(workflow_id, run_id)
    return run and replace(run, snapshot=shown(traced(run.snapshot), nested=nested))


def traced(snapshot: Snapshot) -> Snapshot:
    """A snapshot whose errors have their traceback wherever they are shown."""
    raised = [r.error for r in snapshot.records.values() if r.error is not None and r.error.stack is not None]
    stacks = {_identity(error): error for error in raised}

    def whole(error: RunError | None) -> RunError | None:
        return error if error is None else stacks.get(_identity(error), error)

    records = {
        key: record if record.error is None else replace(record, error=whole(record.error))
        for key, record in snapshot.records.items()
    }
    return replace(snapshot, records=records, error=whole(snapshot.error))


def _identity(error: RunError) -> str:
    return json.dumps(error.to_json(), sort_keys=True)


def result_of(workflow: Workflow[Any, Out], stored: StoredRun) -> RunResult[Out]:
    """A stored run as the result that callers get."""
    snapshot = traced(settled(stored.snapshot))
    suspended = leaf_paths(snapshot.records) if snapshot.status == "suspended" else []
    steps = snapshot.steps
    return RunResult(
        status=snapshot.status,
        run_id=stored.run_id,
        workflow_id=workflow.id,
        input=snapshot.input,
        result=parse_leniently(workflow.schemas.output, snapshot.result)
        if snapshot.status == "success"
        else None,
        error=snapshot.error,
        steps=steps,
        suspended=suspended,
        suspend_payload={
            id: without_meta(steps[id].suspend_payload)
            for id in {path[0]: None for path in suspended}
            if id in steps
        },
        resume_labels=snapshot.resume_labels,
        state=snapshot.state,
        step_execution_path=snapshot.step_execution_path,
        raw_result=snapshot.result,
    )
