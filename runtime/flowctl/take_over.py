"""Going on with local runs whose process is gone. Called by apps as they start and while they are up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flowctl.clock import now_ms
from flowctl.errors import AlreadyClaimedError
from flowctl.execution.plans import plan_restart
from flowctl.launch import launch
from flowctl.run import Run
from flowctl.runners.local import is_lost
from flowctl.snapshot import ACTIVE

if TYPE_CHECKING:
    from flowctl.app import App


async def take_over(app: App, workflow_id: str | None = None) -> None:
    """Go on with the app's local runs, or those of one workflow, whose process is gone."""
    for pointer in await app.storage.active_local_runs(now_ms()):
        workflow = app.workflows.get(pointer.workflow_id)
        if workflow is None or not is_lost(pointer.lease_owner):
            continue
        if workflow_id not in {None, workflow.id}:
            continue
        stored = await app.storage.get_run(pointer.workflow_id, pointer.run_id)
        if stored is None:
            continue
        run: Run[Any] = Run(workflow, app, pointer.run_id, stored.resource_id)
        try:
            await launch(run, plan_restart(stored.snapshot), expected=ACTIVE, newest=pointer.leg)
        except AlreadyClaimedError:
            continue
