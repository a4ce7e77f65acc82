"""The walk over the step graph: what each node does with the steps it holds.

Called by `executor`; calls `steps`. Pure between operations, so it may be replayed at any time.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, assert_never

from flowctl.events import WorkflowEvent
from flowctl.execution import contexts
from flowctl.execution.data import data_before, typed_before
from flowctl.execution.foreach import (
    foreach_ended,
    foreach_flow,
    foreach_started,
    item_ended,
    limit_of,
    stops,
)
from flowctl.execution.loops import decide, loop_position
from flowctl.execution.nested import nested_ended, nested_scope, nested_started
from flowctl.execution.outcome import Flow, Outcome
from flowctl.execution.part import asked, flow_of_answer, left_inside, take_answer, whole_answer
from flowctl.execution.place import CANCELED, PAUSED, Place, flow_of
from flowctl.execution.sleeps import sleep
from flowctl.execution.steps import Call, mark, run_step
from flowctl.execution.walk import Scope, Walk
from flowctl.graph import (
    ConditionalNode,
    ForeachNode,
    LoopNode,
    Node,
    ParallelNode,
    SleepNode,
    SleepUntilNode,
    StepNode,
    ids_of,
)
from flowctl.snapshot import StepResult
from flowctl.step import Step

if TYPE_CHECKING:
    from flowctl.graph import AnyStep, Condition
    from flowctl.workflow import Workflow


_CONTINUED = frozenset({"suspended", "running", "paused"})


async def walk_nodes(walk: Walk, scope: Scope) -> Flow:
    """All nodes of a scope, from where it stands to its end or a stop."""
    nodes = scope.workflow.nodes
    start = walk.positions.get(scope.prefix, 0)
    data = data_before(walk, scope, start)
    for index in range(start, len(nodes)):
        walk.positions[scope.prefix] = index
        progress = walk.progress
        flow = await walk_node(walk, nodes[index], Place(scope, index, data))
        if walk.canceled:
            return CANCELED
        if not flow.goes_on:
            return flow
        if walk.leg.per_step and walk.progress > progress:
            return PAUSED
        data = flow.output
    return Flow("next", data)


async def walk_node(walk: Walk, node: Node, place: Place) -> Flow:
    """One node."""
    match node:
        case StepNode():
            walk.begun(place.scope.key(node.step.id))
            return flow_of(await run_any(walk, place, node.step, place.data))
        case ParallelNode():
            return await _at_once(walk, place, list(node.steps))
        case ConditionalNode():
            return await _branch(walk, place, node)
        case LoopNode():
            return await _loop(walk, place, node)
        case ForeachNode():
            return await _foreach(walk, place, node)
        case SleepNode() | SleepUntilNode():
            walk.begun(place.scope.key(node.id))
            return await sleep(walk, place, node)
        case _:
            assert_never(node)


async def run_any(
    walk: Walk,
    place: Place,
    step: AnyStep,
    payload: Any,
    *,
    key: str | None = None,
    op: str | None = None,
    iteration: int = 0,
    decide: Callable[[Any], Any] | None = None,
    on_end: Callable[[Outcome], Sequence[WorkflowEvent]] | None = None,
) -> Outcome:
    """A step or a nested workflow, unless its record says that it is done or still waits to be resumed."""
    key = key or place.scope.key(step.id)
    record = walk.records.get(key)
    if record is not None and walk.leg.kind != "start" and key not in walk.fresh:
        if _is_settled(walk, key, record, iteration):
            return _settled(walk, key, record)
        if _iteration(record) == iteration and record.payload is not None:
            payload = record.payload
    walk.fresh.add(key)
    call = Call(
        scope=place.scope,
        step=step,  # pyright: ignore[reportArgumentType] - a workflow goes to _nested, which reads no code of it
        key=key,
        op=op or place.op(step.id),
        payload=payload,
        typed_input=partial(typed_before, place),
        iteration=iteration,
        decide=decide,
        announced=on_end is None,
        on_end=on_end,
    )
    if isinstance(step, Step):
        return await run_step(walk, call)
    return await _nested(walk, call, step)


def _is_settled(walk: Walk, key: str, record: StepResult, iteration: int) -> bool:
    if record.status == "suspended":
        return not _is_resumed(walk, key)
    if record.status == "failed":
        return walk.leg.continues and not walk.failed_tries(key)[0]
    return record.status in {"success", "skipped"} and _iteration(record) == iteration


def _settled(walk: Walk, key: str, record: StepResult) -> Outcome:
    bailed = walk.leg.continues and f"{key}^" in walk.positions
    return Outcome(record, bailed=bailed, settled=not walk.leg.continues)


def _iteration(record: StepResult) -> int:
    return (record.metadata or {}).get("iterationCount", 0)


def _is_resumed(walk: Walk, key: str) -> bool:
    inner = (other for other in walk.records if other.startswith((f"{key}/", f"{key}[")))
    return walk.leg.resumes(key) or any(walk.leg.resumes(other) for other in inner)


async def _nested(walk: Walk, call: Call, workflow: Workflow[Any, Any]) -> Outcome:
    before = walk.records.get(call.key)
    continues = before is not None and before.status in _CONTINUED and walk.leg.kind != "start"
    anew = before is not None and not continues
    if anew:
        walk.forget(f"{call.key}/")
    interrupted = continues and before is not None and before.status == "running" and not walk.leg.continues
    if interrupted and workflow.runs_apart:
        walk.take_inside(call.key, await walk.ops.run(f"{call.op}.left", partial(left_inside, walk, call)))
    scope = nested_scope(call, workflow)
    start = partial(nested_started, walk, call, scope, before)
    started = walk.under_way(call.key, before) or await mark(
        walk, f"{call.op}.start", call.key, call.payload, start, anew=anew
    )
    if started.record.status == "failed":
        return started
    flow = await _inside(walk, call, scope, continues=continues)
    end = partial(nested_ended, walk, call, scope, begun=started.record, flow=flow)
    repeatable = not call.iteration  # the next iteration writes over this record
    ended = await mark(walk, f"{call.op}.end", call.key, call.payload, end, repeatable=repeatable)
    if ended.record.status == "success":
        walk.leave(f"{call.key}/")
    return ended


async def _inside(walk: Walk, call: Call, scope: Scope, *, continues: bool) -> Flow:
    """What a nested workflow comes to, walked here or by a function of its own."""
    if not scope.workflow.runs_apart:
        return await walk_nodes(walk, scope)
    ask = partial(asked, walk, call, continues=continues)
    take = partial(take_answer, walk, call)
    answer = await walk.ops.invoke(f"{call.op}.inside", scope.workflow, ask=ask, take=take)
    if answer is None:
        return await walk_nodes(walk, scope)
    return flow_of_answer(await whole_answer(walk, call, answer))


async def _at_once(walk: Walk, place: Place, steps: Sequence[AnyStep]) -> Flow:
    if walk.leg.per_step:
        later = _later(walk, place, steps)
        steps = [step for step in steps if step not in later]
    thunks = [partial(run_any, walk, place, step, place.data) for step in steps]
    outcomes: list[Outcome] = await walk.gather(thunks)
    by_id = dict(zip([step.id for step in steps], outcomes, strict=True))
    return _joined(by_id)


def _later(walk: Walk, place: Place, steps: Sequence[AnyStep]) -> Sequence[AnyStep]:
    """The arms that do not run yet when one step is to be done: the target of a time travel goes first."""
    left = [step for step in steps if not _is_done(walk, place.scope.key(step.id))]
    chosen: list[int] = walk.positions.get(f"{place.scope.prefix}{place.index}?", [])
    ids = [id for at, id in enumerate(ids_of(place.scope.workflow.nodes[place.index])) if at in chosen]
    return sorted(left, key=lambda step: step.id not in ids)[1:]


def _is_done(walk: Walk, key: str) -> bool:
    record = walk.records.get(key)
    return record is not None and record.status == "success"


def _joined(outcomes: dict[str, Outcome]) -> Flow:
    failed = next((o for o in outcomes.values() if o.record.status == "failed"), None)
    if failed is not None:
        return Flow("failed", error=failed.record.error)
    bailed = next((o for o in outcomes.values() if o.bailed), None)
    if bailed is not None:
        return Flow("bailed", bailed.record.output)
    for kind in ("suspended", "canceled", "paused"):
        if any(o.record.status == kind for o in outcomes.values()):
            return Flow(kind)
    return Flow("next", {id: o.record.output for id, o in outcomes.items() if o.record.status == "success"})


async def _branch(walk: Walk, place: Place, node: ConditionalNode) -> Flow:
    chosen = walk.positions.get(f"{place.scope.prefix}{place.index}?")
    if chosen is None or walk.leg.kind == "start":
        memo = await walk.ops.run(place.op("branch"), partial(_choose, walk, place, node))
        chosen = memo["chosen"]
        walk.progress += 1
        walk.positions[f"{place.scope.prefix}{place.index}?"] = chosen
    steps = [node.arms[i][1] for i in chosen]
    return await _at_once(walk, place, steps) if steps else Flow("next", {})


async def _choose(walk: Walk, place: Place, node: ConditionalNode) -> dict[str, Any]:
    truths = await asyncio.gather(*(_holds(walk, place, *arm) for arm in node.arms))
    chosen = [index for index, holds in enumerate(truths) if holds]
    walk.positions[f"{place.scope.prefix}{place.index}?"] = chosen
    await walk.commit()
    return {"chosen": chosen}


async def _holds(walk: Walk, place: Place, condition: Condition, step: AnyStep) -> bool:
    try:
        truth = condition(contexts.condition(walk, place.scope, typed_before(place)))
        return bool(await truth if inspect.isawaitable(truth) else truth)
    except Exception:
        walk.env.logger.exception("Condition of step %r raised; its arm is not taken.", step.id)
        return False


async def _loop(walk: Walk, place: Place, node: LoopNode) -> Flow:
    key = place.scope.key(node.step.id)
    iteration, data, again = loop_position(walk, key, place.data)
    while again:
        repeats = partial(decide, walk, place.scope, node, iteration)
        outcome = await run_any(
            walk, place, node.step, data, op=f"{place.op(node.step.id)}.iter.{iteration}",
            iteration=iteration, decide=repeats,
        )  # fmt: skip
        flow = flow_of(outcome)
        if not flow.goes_on or walk.canceled:
            return flow
        again = bool(outcome.again)
        walk.positions[f"{key}~"] = [iteration, again]
        iteration, data = iteration + 1, flow.output
    return Flow("next", data)


async def _foreach(walk: Walk, place: Place, node: ForeachNode) -> Flow:
    key, op = place.scope.key(node.step.id), place.op(node.step.id)
    start = partial(foreach_started, walk, place, node)
    ended_before = walk.ended_before(key)
    begun = ended_before or walk.under_way(key) or await mark(walk, f"{op}.start", key, place.data, start)
    if begun.record.status == "failed":
        return flow_of(begun)
    items: list[Any] = place.data

    async def one(index: int) -> Outcome:
        item_key = f"{key}[{index}]"
        on_end = partial(item_ended, walk, key, len(items), index)
        item_place = replace(place, data=items[index])
        return await run_any(
            walk, item_place, node.step, items[index], key=item_key, op=f"{op}.item.{index}", on_end=on_end
        )

    outcomes = _known_items(walk, key, len(items))
    left = [index for index in range(len(items)) if index not in outcomes]
    if any(map(stops, outcomes.values())):
        left = [index for index in left if f"{key}[{index}]" in walk.records]
    limit = limit_of(node, begun.record)
    ended = await walk.gather([partial(one, i) for i in left], limit=limit, stops=stops)
    outcomes |= {index: o for index, o in zip(left, ended, strict=True) if o is not None}
    flow = foreach_flow([outcomes[index] for index in sorted(outcomes)])
    if ended_before is None:
        end = partial(foreach_ended, walk, key, begun.record, flow)
        await mark(walk, f"{op}.end", key, place.data, end)
    return flow


def _known_items(walk: Walk, key: str, total: int) -> dict[int, Outcome]:
    """The items that ended before this leg: passed over together, since there may be very many."""
    if walk.leg.kind == "start" or key in walk.fresh:
        return {}
    known = ((index, f"{key}[{index}]") for index in range(total))
    return {
        index: _settled(walk, item, record)
        for index, item in known
        if (record := walk.records.get(item)) is not None
        and item not in walk.fresh
        and _is_settled(walk, item, record, 0)
    }
