"""A nested workflow that runs as a function of its own: what that is told, and what it answers.

It is a part of its parent's run: either side writes records and events there. What the inner side changes
beside them (state, request context, positions) it keeps with the nested workflow's record, and answers it in
the end. Called by `control_flow` on the outer side and by `executor` on the inner one.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from flowctl.execution.nested import nested_scope
from flowctl.execution.ops import Memo
from flowctl.execution.outcome import Flow
from flowctl.execution.paths import bare_path
from flowctl.execution.plans import LARGEST_EVENT_BYTES
from flowctl.execution.steps import Call
from flowctl.execution.walk import Part, Scope, Walk
from flowctl.snapshot import RunError, StepResult

if TYPE_CHECKING:
    from flowctl.workflow import Workflow


def part_of(walk: Walk, call: Call, *, continues: bool) -> Part:
    """The nested workflow that a walk has come to."""
    around = (*walk.part.around, (walk.part.key, walk.part.inside)) if walk.part else ()
    inner = f"{call.key}/"
    return Part(
        workflow_id=walk.scope.workflow.id,
        run_id=walk.run_id,
        number=walk.journal.leg,
        leg=walk.leg.to_json(),
        key=call.key,
        op=call.op,
        around=around,
        continues=continues,
        positions={key: at for key, at in walk.positions.items() if key.startswith(inner)},
    )


def asked(walk: Walk, call: Call, *, continues: bool) -> Memo:
    """The data of an invocation; what is too large for an event is read from storage by whoever gets it."""
    part = part_of(walk, call, continues=continues)
    told = {"part": part.to_json(), "resourceId": walk.env.resource_id}
    given = {
        "inputData": call.payload,
        "initialState": walk.state,
        "requestContext": walk.request_context.to_json(),
    }
    return told | given if len(orjson.dumps(given)) <= LARGEST_EVENT_BYTES else told


def scope_of(walk: Walk, part: Part, payload: Any) -> Scope:
    """The scope that a part walks."""
    workflow: Any = _workflow_of(walk, part)
    return nested_scope(Call(walk.scope, workflow, part.key, part.op, payload), workflow)


def _workflow_of(walk: Walk, part: Part) -> Workflow[Any, Any]:
    """As it stands in its parent, whatever else is known under its id."""
    workflow: Any = walk.scope.workflow
    for id in bare_path(part.key):
        workflow = workflow.steps[id]
    return workflow


def answer_of(walk: Walk, part: Part, flow: Flow) -> Memo:
    """What a part has come to, and what its parent has to know of it."""
    known = {key: record.to_json(stack=True) for key, record in _told(walk, part).items()}
    answer: Memo = {"kind": flow.kind, "inside": walk.inside(), "records": known}
    if flow.error is not None:
        answer["error"] = flow.error.to_json(stack=True)
    if walk.aborted:
        answer["aborted"] = True
    if flow.output is not None:
        answer["output"] = flow.output
    return answer


def _told(walk: Walk, part: Part) -> Mapping[str, StepResult]:
    """The records that the parent needs: what waits, and what the workflow's callbacks are shown."""
    inner, options = f"{part.key}/", _workflow_of(walk, part).options
    shows = options.on_finish is not None or options.on_error is not None
    return {
        key: record
        for key, record in walk.records.items()
        if key.startswith(inner)
        and (record.status == "suspended" or (shows and not {"/", "["} & set(key[len(inner) :])))
    }


def take_answer(walk: Walk, call: Call, answer: Memo) -> None:
    """Merge what a part has changed; it may have more to do."""
    walk.take_inside(call.key, answer.get("inside", {}))
    for key, shown in answer.get("records", {}).items():
        walk.records[key] = record = StepResult.from_json(shown)
        if record.status == "suspended":
            walk.fresh.add(key)
    if answer.get("aborted"):
        walk.aborted = walk.canceled = True


def flow_of_answer(answer: Memo) -> Flow:
    """How a part ended, for its parent."""
    error = answer.get("error")
    return Flow(
        answer["kind"],
        answer.get("output"),
        RunError.from_json(error) if error else None,
        is_kept=answer.get("isKept", False),
    )


async def left_inside(walk: Walk, call: Call) -> Memo:
    """What a part that was interrupted in an earlier leg had changed: the body of an operation."""
    return _changes(await walk.journal.left(f"{call.op}.inside", call.key) or {})


def failure(name: str, message: str) -> Memo:
    """The answer for a part whose function failed, or was not run, as far as the engine tells."""
    return {"kind": "failed", "error": RunError(name, message).to_json(), "isByEngine": True}


async def whole_answer(walk: Walk, call: Call, answer: Memo) -> Memo:
    """The answer, of a part that failed with what it has left in storage: engines tell only a message."""
    if not answer.get("isByEngine"):
        return answer
    whole = await walk.ops.run(f"{call.op}.inside.failure", partial(_left_by_failure, walk, call, answer))
    take_answer(walk, call, whole)
    return whole


async def _left_by_failure(walk: Walk, call: Call, answer: Memo) -> Memo:
    """What it has answered; if it never came to its end, what it had changed by then."""
    kept = await walk.finished(f"{call.op}.inside", call.key) or {}
    return kept.get("answer") or {"kind": "failed", "error": answer["error"], "inside": _changes(kept)}


def _changes(kept: Mapping[str, Any]) -> Memo:
    return {name: value for name, value in kept.items() if name not in {"output", "answer"}}
