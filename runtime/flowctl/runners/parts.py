"""A nested workflow with flow control of its own, as the function that its parent invokes.

Called by `runners.inngest` for an event that names a part of a run. The part works on its parent's run: same
journal, same leg, same cancellation; so a commit of one whose parent has ended or moved on is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import inngest

from flowctl.context import EngineInfo
from flowctl.errors import RunNotFoundError
from flowctl.execution.executor import execute_part
from flowctl.execution.ops import Memo
from flowctl.execution.outcome import Flow
from flowctl.execution.part import answer_of
from flowctl.execution.plans import Leg
from flowctl.execution.walk import Environment, Part, Walk
from flowctl.runners.inngest_ops import InngestOps
from flowctl.runners.limits import RollOver
from flowctl.snapshot import ACTIVE, Snapshot, StepResult
from flowctl.storage.base import Storage
from flowctl.stored_run import StoredRun

if TYPE_CHECKING:
    from flowctl.app import App


@dataclass(frozen=True, slots=True)
class _Given:
    """What a part begins from."""

    payload: Any
    snapshot: Snapshot
    inside: list[tuple[str, Memo]]


def names_part(ctx: inngest.Context) -> bool:
    """Whether a request is for a part of another workflow's run."""
    return isinstance(ctx.event.data.get("part"), Mapping)


async def run_part(app: App, ctx: inngest.Context, ops: InngestOps) -> Memo:
    """Walk the part that an invocation names; its answer to the parent."""
    part = Part.from_json(_mapping(ctx.event.data["part"]))
    storage = await app.opened()
    known = await storage.get_status(part.workflow_id, part.run_id)
    if known is None or known[0] not in ACTIVE or known[1] != part.number:
        return {"kind": "canceled"}
    given = await _given(storage, part, ctx.event.data, ops)
    bound = app.inngest_runner.bound(app.get_workflow(part.workflow_id))
    leg = Leg.from_json(part.leg, given.snapshot)
    resource_id = ctx.event.data.get("resourceId")
    async with bound.journal(part.run_id, part.number) as journal, bound.watched(journal) as signal:
        env = Environment(
            app,
            EngineInfo("inngest"),
            app.logger,
            signal,
            str(resource_id) if resource_id else None,
            ctx.event.ts or app.clock.now(),
        )
        ops.take_turns(storage, part.workflow_id, part.run_id, partial(journal.take_up, part.key))
        walk = Walk.of(bound.workflow, leg, ops, journal, env, part=part)
        for key, memo in given.inside:
            walk.take_inside(key, memo)
        try:
            answer = await execute_part(walk, part, given.payload)
        except RollOver:
            return answer_of(walk, part, Flow("paused")) | {"isLong": True}
    if answer["kind"] == "failed":
        raise inngest.NonRetriableError(answer["error"]["message"], quiet=True)
    return answer


async def _given(storage: Storage, part: Part, data: Mapping[str, Any], ops: InngestOps) -> _Given:
    """From the invocation, and from storage what was too large for it or is there of an earlier leg."""
    run, is_told = (part.workflow_id, part.run_id), "inputData" in data
    memo: Memo = {}
    if not is_told:
        memo = await ops.plan(f"{part.op}.plan", partial(_stored, storage, part))
    records: dict[str, StepResult] = {}
    if part.continues and (earlier := await storage.get_earlier_run(*run)) is not None:
        records = {k: r for k, r in earlier.snapshot.records.items() if k.startswith(f"{part.key}/")}
    told = data if is_told else memo
    snapshot = Snapshot(
        part.run_id,
        status="running",
        records=records,
        state=dict(told["initialState"]),
        request_context=dict(told["requestContext"]),
        positions=dict(part.positions),
    )
    payload = data["inputData"] if is_told else await _payload(storage, part)
    return _Given(payload, snapshot, [(key, inside) for key, inside in memo.get("inside", [])])


async def _stored(storage: Storage, part: Part) -> Memo:
    """What the run and the parts around this one have come to."""
    run = (part.workflow_id, part.run_id)
    inside = [
        (key, await storage.finished_memo(*run, leg=part.number, key=key, op=op) or {})
        for key, op in part.around
    ]
    header = (await _run(storage, part)).snapshot
    return {"inside": inside, "initialState": header.state, "requestContext": header.request_context}


async def _payload(storage: Storage, part: Part) -> Any:
    record = (await _run(storage, part)).snapshot.records.get(part.key)
    return record.payload if record is not None else None


async def _run(storage: Storage, part: Part) -> StoredRun:
    stored = await storage.get_run(part.workflow_id, part.run_id)
    if stored is None:
        raise RunNotFoundError(part.workflow_id, part.run_id)
    return stored


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
