"""What flows from node to node, read from records: plain and typed. Pure."""

from __future__ import annotations

from typing import Any

from flowctl.execution.place import Place
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
from flowctl.schema import own_copy, parse_leniently


def data_before(walk: Walk, scope: Scope, index: int) -> Any:
    """The data that the node at an index gets, from the records before it."""
    data: Any = scope.input
    for node in scope.workflow.nodes[:index]:
        data = recorded_output(walk, scope, node, data)
    return data


def recorded_output(walk: Walk, scope: Scope, node: Node, before: Any) -> Any:
    """What a finished node gave, read from its records."""
    if isinstance(node, ParallelNode | ConditionalNode):
        ran = {id: walk.records.get(scope.key(id)) for id in ids_of(node)}
        return {
            id: record.output
            for id, record in ran.items()
            if record is not None and record.status == "success"
        }
    if isinstance(node, SleepNode | SleepUntilNode):
        return before
    return walk.output_of(scope, ids_of(node)[0])


def typed_before(place: Place) -> Any:
    """The data before a node as its condition or mapping sees it, which may change it."""
    data, nodes = own_copy(place.data), place.scope.workflow.nodes[: place.index]
    before = next(
        (node for node in reversed(nodes) if not isinstance(node, SleepNode | SleepUntilNode)), None
    )
    if before is None:
        return parse_leniently(place.scope.workflow.schemas.input, data)
    return _typed_output(before, data)


def _typed_output(
    node: ParallelNode | ConditionalNode | ForeachNode | StepNode | LoopNode, output: Any
) -> Any:
    match node:
        case StepNode() | LoopNode():
            return parse_leniently(node.step.schemas.output, output)
        case ForeachNode():
            return [parse_leniently(node.step.schemas.output, item) for item in output or []]
        case ParallelNode() | ConditionalNode():
            schemas = {step.id: step.schemas.output for step in node.steps}
            return {id: parse_leniently(schemas[id], value) for id, value in output.items()}
