"""What users are told and asked about a run: `on_start`, `on_finish`, `on_error`, `should_persist_snapshot`.

Called inside durable operations by `executor` and `nested`, and by `run` for what happens in the caller.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flowctl import graph
from flowctl.request_context import RequestContext
from flowctl.schema import own_copy, parse_leniently
from flowctl.snapshot import RunError, RunStatus, Snapshot, StepResult, is_own_step

if TYPE_CHECKING:
    from flowctl.app import App
    from flowctl.execution.walk import Scope, Walk
    from flowctl.workflow import Workflow


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What `on_start`, `on_finish` and `on_error` are given.

    `result` is JSON data and there after a success, `error` after a failure; `steps` has a record for
    each step that began, `state` the run's state; `get_init_data()` gives the validated input.
    """

    status: RunStatus
    result: Any
    error: RunError | None
    steps: dict[str, StepResult]
    run_id: str
    workflow_id: str
    resource_id: str | None
    state: dict[str, Any]
    request_context: RequestContext
    logger: logging.Logger
    app: App | None
    get_init_data: Callable[[], Any]


@dataclass(frozen=True)
class SnapshotInfo:
    """What `should_persist_snapshot` is asked about: the run's status, and a record for each step that began.

    A step that runs beside the one that has just ended may not have its record yet.
    """

    workflow_status: RunStatus
    _records: Mapping[str, StepResult]

    @cached_property
    def step_results(self) -> dict[str, StepResult]:
        """The records, by the steps' ids."""
        return {id: _own(record) for id, record in self._records.items()}


def is_persisted(
    workflow: Workflow[Any, Any],
    status: RunStatus,
    records: Mapping[str, StepResult],
    logger: logging.Logger,
) -> bool:
    """Whether a state of a run is to be shown, as its workflow says; what that raises is logged: shown."""
    asked = workflow.options.should_persist_snapshot
    if asked is None:
        return True
    ids = (id for node in workflow.nodes for id in graph.ids_of(node))
    info = SnapshotInfo(status, {id: records[id] for id in ids if id in records})
    try:
        return bool(asked(info))
    except Exception:
        logger.exception("should_persist_snapshot of workflow %r raised.", workflow.id)
        return True


def info_of(
    workflow: Workflow[Any, Any], snapshot: Snapshot, *, resource_id: str | None, app: App
) -> RunInfo:
    """A stored run as callbacks see it."""
    return RunInfo(
        status=snapshot.status,
        result=own_copy(snapshot.result),
        error=snapshot.error,
        steps={id: _own(record) for id, record in snapshot.steps.items()},
        run_id=snapshot.run_id,
        workflow_id=workflow.id,
        resource_id=resource_id,
        state=own_copy(snapshot.state),
        request_context=RequestContext(own_copy(snapshot.request_context)),
        logger=app.logger,
        app=app,
        get_init_data=lambda: parse_leniently(workflow.schemas.input, own_copy(snapshot.input)),
    )


def scope_info(
    walk: Walk, scope: Scope, status: RunStatus, result: Any = None, error: RunError | None = None
) -> RunInfo:
    """A workflow that is being walked, the run's own or a nested one, as callbacks see it."""
    inner = ((key[len(scope.prefix) :], r) for key, r in walk.records.items() if key.startswith(scope.prefix))
    return RunInfo(
        status=status,
        result=own_copy(result),
        error=error,
        steps={id: _own(record) for id, record in inner if is_own_step(id)},
        run_id=walk.run_id,
        workflow_id=scope.workflow.id,
        resource_id=walk.env.resource_id,
        state=own_copy(walk.state),
        request_context=RequestContext(walk.request_context.to_json()),
        logger=walk.env.logger,
        app=walk.env.app,
        get_init_data=lambda: parse_leniently(scope.workflow.schemas.input, own_copy(scope.input)),
    )


async def notify_started(workflow: Workflow[Any, Any], info: Callable[[], RunInfo]) -> None:
    """Call `on_start`; what it raises keeps the workflow from beginning."""
    if workflow.options.on_start is not None:
        await _awaited(workflow.options.on_start(info()))


async def notify_ended(workflow: Workflow[Any, Any], status: RunStatus, info: Callable[[], RunInfo]) -> None:
    """Call `on_finish` unless the run only paused, then `on_error` after a failure.

    What they raise is logged.
    """
    options = workflow.options
    wanted = [
        options.on_finish if status != "paused" else None,
        options.on_error if status == "failed" else None,
    ]
    for callback in wanted:
        if callback is None:
            continue
        told = info()
        try:
            await _awaited(callback(told))
        except Exception:
            told.logger.exception("A callback of workflow %r raised.", workflow.id)


def _own(record: StepResult) -> StepResult:
    """A copy, so that whoever gets it may change its data."""
    return StepResult.from_json(own_copy(record.to_json(stack=True)))


async def _awaited(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value
