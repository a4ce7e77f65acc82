"""Loops: where one stands, and whether it goes round again."""

from __future__ import annotations

import inspect
from typing import Any

from flowctl.execution import contexts
from flowctl.execution.walk import Scope, Walk
from flowctl.graph import LoopNode
from flowctl.schema import own_copy, parse_leniently


def loop_position(walk: Walk, key: str, data: Any) -> tuple[int, Any, bool]:
    """Where a loop goes on: the iteration, its input, and whether there is one more."""
    record = walk.records.get(key)
    if record is None or walk.leg.kind == "start" or key in walk.fresh:
        return 1, data, True
    iteration = (record.metadata or {}).get("iterationCount", 1)
    if record.status != "success":
        return iteration, record.payload, True
    done, again = walk.positions.get(f"{key}~", [0, True])
    return iteration + 1, record.output, again if done == iteration else True


async def decide(walk: Walk, scope: Scope, node: LoopNode, iteration: int, output: Any) -> bool:
    """Whether the loop goes round again after this output; noted, to be stored with the iteration's end."""
    typed = parse_leniently(node.step.schemas.output, own_copy(output))
    own = {node.step.id: output}
    holds = node.condition(contexts.condition(walk, scope, typed, iteration=iteration, own=own))
    truth = bool(await holds if inspect.isawaitable(holds) else holds)
    again = truth if node.kind == "dowhile" else not truth
    walk.positions[f"{scope.key(node.step.id)}~"] = [iteration, again]
    return again
