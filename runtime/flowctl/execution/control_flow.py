"""The walk over the step graph: what each node does with the steps it holds.

Called by `executor`; calls `steps`. Pure between operations, so it may be replayed at any time.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, assert_never

from flowctl import events
from flowctl.events import WorkflowEvent
from flowctl.execution import contexts
from flowctl.execution.data import data_before, typed_output
from flowctl.execution.outcome import Flow, Outcome, error_of
from flowctl.execution.steps import Call, Marked, mark, run_step
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
)
from flowctl.schema import parse_leniently
from flowctl.snapshot import RunError, StepResult
from flowctl.step import Step

if TYPE_CHECKING:
    from flowctl.workflow import Workflow

PAUSED = Flow("paused")
CANCELED = Flow("canceled")


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the graph a node is being walked, and the data before it: plain and typed."""

    scope: Scope
    index: int
    data: Any
    typed: Any

    def op(self, id: str) -> str:
        """The durable id of what happens here to this step: its path."""
        return f"{self.scope.op_prefix}{self.index}.{id}"


async def walk_nodes(walk: Walk, scope: Scope) -> Flow:
    """All nodes of a scope, from where it stands to its end or a stop."""
    nodes = scope.workflow.nodes
    start = walk.positions.get(scope.prefix, 0)
    data, typed = data_before(walk, scope, start)
    for index in range(start, len(nodes)):
        walk.positions[scope.prefix] = index
        flow = await walk_node(walk, nodes[index], Place(scope, index, data, typed))
        if walk.canceled:
            return CANCELED
        if not flow.goes_on:
            return flow
        if walk.leg.per_step:
            return PAUSED
        data, typed = flow.output, typed_output(nodes[index], flow.output, typed)
    return Flow("next", data)


async def walk_node(walk: Walk, node: Node, place: Place) -> Flow:
    """One node."""
    match node:
        case StepNode():
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
            return await _sleep(walk, place, node)
        case _:
            assert_never(node)


def flow_of(outcome: Outcome) -> Flow:
    """What a step's outcome means for the walk."""
    record = outcome.record
    if outcome.bailed:
        return Flow("bailed", record.output)
    match record.status:
        case "success":
            return Flow("next", record.output)
        case "failed":
            return Flow("failed", error=record.error)
        case "suspended":
            return Flow("suspended")
        case "paused":
            return PAUSED
        case _:
            return CANCELED


async def run_any(
    walk: Walk,
    place: Place,
    step: Step[Any, Any] | Workflow[Any, Any],
    payload: Any,
    *,
    key: str | None = None,
    op: str | None = None,
    iteration: int = 0,
    decide: Callable[[Any], Any] | None = None,
    item_ended: Callable[[Outcome], Sequence[WorkflowEvent]] | None = None,
) -> Outcome:
    """A step or a nested workflow, unless its record says that it is done or still waits to be resumed."""
    key = key or place.scope.key(step.id)
    record = walk.records.get(key)
    if record is not None and walk.leg.kind != "start" and key not in walk.fresh:
        if _is_settled(walk, key, record, iteration):
            return Outcome(record)
        payload = payload if record.payload is None else record.payload
    walk.fresh.add(key)
    call = Call(
        scope=place.scope,
        step=step,  # pyright: ignore[reportArgumentType] - a workflow goes to _nested, which reads no code of it
        key=key,
        op=op or place.op(step.id),
        payload=payload,
        typed_input=place.typed,
        iteration=iteration,
        decide=decide,
        announced=item_ended is None,
        on_end=item_ended,
    )
    if isinstance(step, Step):
        return await run_step(walk, call)
    return await _nested(walk, call, step)


def _is_settled(walk: Walk, key: str, record: StepResult, iteration: int) -> bool:
    if record.status == "suspended":
        return not _is_resumed(walk, key)
    known = (record.metadata or {}).get("iterationCount", 0)
    return record.status in {"success", "skipped"} and known == iteration


def _is_resumed(walk: Walk, key: str) -> bool:
    inner = (other for other in walk.records if other.startswith((f"{key}/", f"{key}[")))
    return walk.leg.resumes(key) or any(walk.leg.resumes(other) for other in inner)


async def _nested(walk: Walk, call: Call, workflow: Workflow[Any, Any]) -> Outcome:
    before = walk.records.get(call.key)
    continues = before is not None and before.status in {"suspended", "running"} and walk.leg.kind != "start"
    if not continues:
        walk.forget(f"{call.key}/")
    started = await mark(
        walk, f"{call.op}.start", call.key, call.payload, partial(_nested_started, walk, call, before)
    )
    walk.begun(call.key)
    scope = Scope(workflow, f"{call.key}/", f"{call.op}/", call.payload)
    flow = await walk_nodes(walk, scope)
    return await mark(
        walk,
        f"{call.op}.end",
        call.key,
        call.payload,
        partial(_nested_ended, walk, call, started.record, flow),
    )


async def _nested_started(walk: Walk, call: Call, before: StepResult | None, now: int) -> Marked:
    metadata = {"iterationCount": call.iteration} if call.iteration else None
    record = StepResult("running", payload=call.payload, started_at=now, metadata=metadata)
    if before is not None and before.status == "suspended":
        record = replace(record, started_at=before.started_at, resumed_at=now)
    emitted = (
        [events.step_started(walk.run_id, call.key, record, walk.journal.new_id())] if call.announced else []
    )
    return record, emitted, None


async def _nested_ended(walk: Walk, call: Call, begun: StepResult, flow: Flow, now: int) -> Marked:
    again: bool | None = None
    match flow.kind:
        case "next" | "bailed":
            record = replace(begun, status="success", output=flow.output, ended_at=now)
            if call.decide is not None:
                decided = call.decide(flow.output)
                again = bool(await decided if inspect.isawaitable(decided) else decided)
        case "failed":
            record = replace(begun, status="failed", error=flow.error, ended_at=now)
        case "suspended":
            record = replace(
                begun, status="suspended", suspended_at=now, suspend_payload=_inner_payload(walk, call)
            )
        case "paused":
            record = replace(begun, status="paused")
        case _:
            record = replace(begun, status="canceled", ended_at=now)
    emitted: Sequence[WorkflowEvent] = (
        events.step_ended(walk.run_id, call.key, record) if call.announced else []
    )
    if call.on_end is not None:
        emitted = call.on_end(Outcome(record))
    return record, emitted, again


def _inner_payload(walk: Walk, call: Call) -> dict[str, Any]:
    prefix = f"{call.key}/"
    for key, record in walk.records.items():
        if key.startswith(prefix) and record.status == "suspended":
            id = key[len(prefix) :].partition("/")[0].partition("[")[0]
            payload = dict(record.suspend_payload or {})
            inner = payload.pop("__workflow_meta", {}).get("path", [])
            return payload | {"__workflow_meta": {"runId": walk.run_id, "path": [id, *inner]}}
    return {}


async def _at_once(walk: Walk, place: Place, steps: Sequence[Step[Any, Any] | Workflow[Any, Any]]) -> Flow:
    if walk.leg.per_step:
        later = [step for step in steps if not _is_done(walk, place.scope.key(step.id))][1:]
        steps = [step for step in steps if step not in later]
    thunks = [partial(run_any, walk, place, step, place.data) for step in steps]
    outcomes: list[Outcome] = await walk.ops.gather(thunks)
    by_id = dict(zip([step.id for step in steps], outcomes, strict=True))
    return _joined(by_id)


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
        walk.positions[f"{place.scope.prefix}{place.index}?"] = chosen
    steps = [node.arms[i][1] for i in chosen]
    return await _at_once(walk, place, steps) if steps else Flow("next", {})


async def _choose(walk: Walk, place: Place, node: ConditionalNode) -> dict[str, Any]:
    chosen: list[int] = []
    for index, (condition, step) in enumerate(node.arms):
        try:
            holds = condition(contexts.condition(walk, place.scope, place.typed))
            if await holds if inspect.isawaitable(holds) else holds:
                chosen.append(index)
        except Exception:
            walk.env.logger.exception("Condition of step %r raised; its arm is not taken.", step.id)
    walk.positions[f"{place.scope.prefix}{place.index}?"] = chosen
    await walk.commit()
    return {"chosen": chosen}


async def _loop(walk: Walk, place: Place, node: LoopNode) -> Flow:
    key = place.scope.key(node.step.id)
    iteration, data, again = _loop_position(walk, key, place.data)
    while again:
        decide = partial(_decide, walk, place.scope, node, iteration)
        outcome = await run_any(
            walk, place, node.step, data, op=f"{place.op(node.step.id)}.iter.{iteration}",
            iteration=iteration, decide=decide,
        )  # fmt: skip
        flow = flow_of(outcome)
        if not flow.goes_on or walk.canceled:
            return flow
        again = bool(outcome.again)
        walk.positions[f"{key}~"] = [iteration, again]
        iteration, data = iteration + 1, flow.output
    return Flow("next", data)


def _loop_position(walk: Walk, key: str, data: Any) -> tuple[int, Any, bool]:
    record = walk.records.get(key)
    if record is None or walk.leg.kind == "start" or key in walk.fresh:
        return 1, data, True
    iteration = (record.metadata or {}).get("iterationCount", 1)
    if record.status != "success":
        return iteration, record.payload, True
    done, again = walk.positions.get(f"{key}~", [0, True])
    return iteration + 1, record.output, again if done == iteration else True


def _decide(walk: Walk, scope: Scope, node: LoopNode, iteration: int, output: Any) -> Any:
    typed = parse_leniently(node.step.schemas.output, output)
    own = {node.step.id: output}
    return _repeats(
        node, node.condition(contexts.condition(walk, scope, typed, iteration=iteration, own=own))
    )


async def _repeats(node: LoopNode, holds: Any) -> bool:
    truth = bool(await holds if inspect.isawaitable(holds) else holds)
    return truth if node.kind == "dowhile" else not truth


async def _foreach(walk: Walk, place: Place, node: ForeachNode) -> Flow:
    key, op = place.scope.key(node.step.id), place.op(node.step.id)
    begun = await mark(walk, f"{op}.start", key, place.data, partial(_foreach_started, walk, key, place.data))
    walk.begun(key)
    if not isinstance(place.data, list):
        return flow_of(begun)
    items: list[Any] = place.data

    async def one(index: int) -> Outcome:
        item_key = f"{key}[{index}]"
        ended = partial(_item_ended, walk, key, len(items), index)
        item_place = replace(place, data=items[index], typed=items[index])
        return await run_any(
            walk, item_place, node.step, items[index], key=item_key, op=f"{op}.item.{index}", item_ended=ended
        )

    thunks = [partial(one, index) for index in range(len(items))]
    outcomes: list[Outcome | None] = await walk.ops.gather(thunks, limit=node.concurrency, stops=_stops)
    flow = _foreach_flow([o for o in outcomes if o is not None])
    end = partial(_foreach_ended, walk, key, begun.record, flow)
    await mark(walk, f"{op}.end", key, place.data, end)
    return flow


def _stops(outcome: Outcome) -> bool:
    return outcome.bailed or outcome.record.status == "failed"


async def _foreach_started(walk: Walk, key: str, data: Any, now: int) -> Marked:
    before = walk.records.get(key)
    record = StepResult("running", payload=data, started_at=now)
    if not isinstance(data, list):
        message = f"foreach needs a list, but the step before {key!r} gave {type(data).__name__}"
        record = replace(record, status="failed", ended_at=now, error=RunError("TypeError", message))
        return record, events.step_ended(walk.run_id, key, record), None
    if before is not None and before.status == "suspended":
        record = replace(
            record, started_at=before.started_at, resumed_at=now, resume_payload=walk.leg.resume_data
        )
    return record, [events.step_started(walk.run_id, key, record, walk.journal.new_id())], None


def _item_ended(walk: Walk, key: str, total: int, index: int, outcome: Outcome) -> Sequence[WorkflowEvent]:
    done = sum(
        walk.records[item].status == "success"
        for i in range(total)
        if (item := f"{key}[{i}]") in walk.records
    )
    record = outcome.record
    return [
        events.step_progressed(
            walk.run_id,
            key,
            completed=done,
            total=total,
            index=index,
            status=record.status,
            output=record.output,
        )
    ]


def _foreach_flow(outcomes: Sequence[Outcome]) -> Flow:
    failed = next((o for o in outcomes if o.record.status == "failed"), None)
    if failed is not None:
        return Flow("failed", error=failed.record.error)
    bailed = next((o for o in outcomes if o.bailed), None)
    if bailed is not None:
        return Flow("bailed", bailed.record.output)
    for kind in ("suspended", "canceled", "paused"):
        if any(o.record.status == kind for o in outcomes):
            return Flow(kind)
    return Flow("next", [o.record.output for o in outcomes])


async def _foreach_ended(walk: Walk, key: str, begun: StepResult, flow: Flow, now: int) -> Marked:
    match flow.kind:
        case "next" | "bailed":
            record = replace(begun, status="success", output=flow.output, ended_at=now)
        case "failed":
            record = replace(begun, status="failed", error=flow.error, ended_at=now)
        case "suspended":
            record = replace(
                begun, status="suspended", suspended_at=now, suspend_payload=_item_payload(walk, key)
            )
        case _:
            record = replace(begun, status="canceled", ended_at=now)
    return record, events.step_ended(walk.run_id, key, record), None


def _item_payload(walk: Walk, key: str) -> dict[str, Any]:
    prefix = f"{key}["
    waiting = (r for k, r in walk.records.items() if k.startswith(prefix) and k.endswith("]"))
    first = next((r for r in waiting if r.status == "suspended"), None)
    return dict(first.suspend_payload or {}) if first else {}


async def _sleep(walk: Walk, place: Place, node: SleepNode | SleepUntilNode) -> Flow:
    key, op = place.scope.key(node.id), place.op(node.id)
    record = walk.records.get(key)
    if record is None or record.status != "waiting" or walk.leg.kind == "start":
        begun = await mark(
            walk, f"{op}.wait", key, place.data, partial(_sleep_started, walk, place, node, key)
        )
        record = begun.record
    walk.begun(key)
    if record.status == "failed":
        return Flow("failed", error=record.error)
    await walk.ops.sleep(op, (record.metadata or {}).get("until", 0))
    await mark(walk, f"{op}.done", key, place.data, partial(_sleep_ended, walk, key, record, place.data))
    return Flow("next", place.data)


async def _sleep_started(
    walk: Walk, place: Place, node: SleepNode | SleepUntilNode, key: str, now: int
) -> Marked:
    record = StepResult("waiting", payload=place.data, started_at=now)
    try:
        until = await _wake_time(walk, place, node, now)
    except Exception as err:  # noqa: BLE001 - whatever the user's function raises fails the run, as data
        record = replace(record, status="failed", error=error_of(err), ended_at=now)
        return record, events.step_ended(walk.run_id, key, record), None
    record = replace(record, metadata={"until": until})
    return record, [events.step_waiting(walk.run_id, key, record)], None


async def _sleep_ended(walk: Walk, key: str, begun: StepResult, data: Any, now: int) -> Marked:
    record = replace(begun, status="success", output=data, ended_at=now)
    return record, events.step_ended(walk.run_id, key, record), None


async def _wake_time(walk: Walk, place: Place, node: SleepNode | SleepUntilNode, now: int) -> int:
    value: Any = node.duration if isinstance(node, SleepNode) else node.date
    if callable(value):
        value = value(contexts.condition(walk, place.scope, place.typed))
        value = await value if inspect.isawaitable(value) else value
    if isinstance(node, SleepUntilNode):
        return now if value is None else _millis(value)
    if isinstance(value, timedelta):
        return now + int(value.total_seconds() * 1000)
    return now + max(0, int(value or 0))


def _millis(date: Any) -> int:
    known = datetime.fromisoformat(date) if isinstance(date, str) else date
    aware = known if known.tzinfo else known.replace(tzinfo=UTC)
    return int(aware.timestamp() * 1000)
