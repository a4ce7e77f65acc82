"""A planned leg claimed in storage and handed to its engine; whether somebody executes a run already.

Called by `run` and `take_over`; calls storage and the runners.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flowctl.clock import now_ms
from flowctl.errors import AlreadyClaimedError, RunNotFoundError, StillRunningError
from flowctl.execution.callbacks import is_persisted
from flowctl.execution.plans import Leg, dispatch_body
from flowctl.runners.local import is_lost
from flowctl.snapshot import RunStatus, StepResult
from flowctl.storage.base import Claim, Dispatch
from flowctl.stored_run import StoredRun
from flowctl.stream import LegEnd, last_event

if TYPE_CHECKING:
    from flowctl.run import Run

NEVER_STARTED: frozenset[RunStatus] = frozenset({"pending"})


async def launch(
    run: Run[Any],
    leg: Leg,
    *,
    expected: frozenset[RunStatus],
    records: Mapping[str, StepResult] | None = None,
    newest: int | None = None,
) -> Awaitable[Any]:
    """Claim a leg and hand it to its engine; the answer can be awaited for the leg's end.

    `records` replace those that are stored; leg number `newest`, when given, must be the last so far.
    """
    app, engine = run.app, run.app.engine_for(run.workflow)
    claim = Claim(
        run.workflow_id,
        run.run_id,
        expected,
        app.clock.now(),
        replace(leg.snapshot, engine_run_id=None),
        engine=engine,
        lease=app.local_runner.lease() if engine == "local" else None,
        records=records,
        leg=newest,
        dispatch=dispatch_body(leg, run.resource_id) if engine == "inngest" else None,
        is_shown=is_persisted(run.workflow, leg.snapshot.status, leg.snapshot.records, app.logger),
    )
    seen = 0 if expected is NEVER_STARTED or engine == "local" else await last_event(run)
    number = await app.storage.claim(claim)
    if number is None:
        raise await _refusal(run, expected)
    if engine == "local":
        here = app.local_runner.launch(run.workflow, leg, number=number, resource_id=run.resource_id)
        return LegEnd(run, seen, number, here=here)
    await app.inngest_runner.deliver(Dispatch(run.workflow_id, run.run_id, number, claim.dispatch or {}))
    return LegEnd(run, seen, number)


async def _refusal(run: Run[Any], expected: frozenset[RunStatus]) -> AlreadyClaimedError | StillRunningError:
    known = await run.app.storage.get_status(run.workflow_id, run.run_id)
    if known is None:
        raise RunNotFoundError(run.workflow_id, run.run_id)
    if expected is NEVER_STARTED:
        return started_before(run.run_id, known[0])
    return AlreadyClaimedError(f"Run {run.run_id!r} is {known[0]}: another call was first.")


def started_before(run_id: str, status: RunStatus) -> StillRunningError:
    """Why a run is not started twice, and what to do instead."""
    way_out = "go on with resume()" if status in {"paused", "suspended"} else "create another run"
    return StillRunningError(f"Run {run_id!r} was started before (it is {status}): {way_out}.")


async def is_under_way(run: Run[Any], stored: StoredRun) -> bool:
    """Whether somebody executes the run: the holder of its lease, or Inngest.

    Raises EngineError when Inngest does not say.
    """
    active = await run.app.storage.active_local_runs(now_ms())
    held = {(p.workflow_id, p.run_id): p.lease_owner for p in active}
    if not is_lost(held.get((run.workflow_id, run.run_id))):
        return True
    begun = stored.snapshot.engine_run_id
    if begun is None or run.app.engine_for(run.workflow) == "local":
        return False
    return await run.app.inngest_runner.is_under_way(run.workflow, begun)
