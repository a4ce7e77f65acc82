"""The step graph: frozen nodes that the builder makes, the executor walks and the API shows.

`to_json` gives the serialized form of each node (camelCase), as stored in snapshots.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from flowctl.step import Step

if TYPE_CHECKING:
    from flowctl.workflow import Workflow

Condition = Callable[[Any], Any]
AnyStep: TypeAlias = "Step[Any, Any] | Workflow[Any, Any]"

_SOURCE_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class StepNode:
    """One step (or nested workflow) after the other; a mapping is a step with component "MAPPING"."""

    step: AnyStep
    map_config: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The node for snapshots and the API."""
        if self.map_config is not None:
            return {"type": "mapping", "id": self.step.id, "mapConfig": self.map_config}
        return {"type": "step", "step": step_json(self.step)}


@dataclass(frozen=True, slots=True)
class ParallelNode:
    """All steps at once, with the same input."""

    steps: tuple[AnyStep, ...]

    def to_json(self) -> dict[str, Any]:
        """The node for snapshots and the API."""
        return {"type": "parallel", "steps": [{"type": "step", "step": step_json(s)} for s in self.steps]}


@dataclass(frozen=True, slots=True)
class ConditionalNode:
    """Every arm whose condition is true, at once."""

    arms: tuple[tuple[Condition, AnyStep], ...]

    @property
    def steps(self) -> tuple[AnyStep, ...]:
        """The steps of the arms."""
        return tuple(step for _, step in self.arms)

    def to_json(self) -> dict[str, Any]:
        """The node for snapshots and the API."""
        return {
            "type": "conditional",
            "steps": [{"type": "step", "step": step_json(step)} for step in self.steps],
            "serializedConditions": [
                {"id": f"{step.id}-condition", "fn": source_of(condition)} for condition, step in self.arms
            ],
        }


@dataclass(frozen=True, slots=True)
class LoopNode:
    """A step again and again: while, or until, the condition holds."""

    step: AnyStep
    condition: Condition
    kind: Literal["dowhile", "dountil"]

    def to_json(self) -> dict[str, Any]:
        """The node for snapshots and the API."""
        return {
            "type": "loop",
            "step": {"type": "step", "step": step_json(self.step)},
            "serializedCondition": {"id": f"{self.step.id}-condition", "fn": source_of(self.condition)},
            "loopType": self.kind,
        }


@dataclass(frozen=True, slots=True)
class ForeachNode:
    """A step for each item of a list, at most `concurrency` (or what a function says) at a time."""

    step: AnyStep
    concurrency: int | Callable[[Any], Any]

    def to_json(self) -> dict[str, Any]:
        """The node for snapshots and the API."""
        return {
            "type": "foreach",
            "step": {"type": "step", "step": step_json(self.step)},
            "opts": {"fn": source_of(self.concurrency)}
            if callable(self.concurrency)
            else {"concurrency": self.concurrency},
        }


@dataclass(frozen=True, slots=True)
class SleepNode:
    """A pause of so many milliseconds (or what a function says); passes its input on."""

    id: str
    duration: int | Callable[[Any], Any]

    def to_json(self) -> dict[str, Any]:
        """The node for snapshots and the API."""
        known = isinstance(self.duration, int)
        return {"type": "sleep", "id": self.id} | (
            {"duration": self.duration} if known else {"fn": source_of(self.duration)}  # pyright: ignore[reportArgumentType] - told apart by `known`
        )


@dataclass(frozen=True, slots=True)
class SleepUntilNode:
    """A pause until a date (or what a function says); passes its input on."""

    id: str
    date: datetime | Callable[[Any], Any]

    def to_json(self) -> dict[str, Any]:
        """The node for snapshots and the API."""
        if isinstance(self.date, datetime):
            return {"type": "sleepUntil", "id": self.id, "date": self.date.isoformat()}
        return {"type": "sleepUntil", "id": self.id, "fn": source_of(self.date)}


Node = StepNode | ParallelNode | ConditionalNode | LoopNode | ForeachNode | SleepNode | SleepUntilNode


def steps_of(node: Node) -> tuple[AnyStep, ...]:
    """The steps that a node holds."""
    match node:
        case StepNode() | LoopNode() | ForeachNode():
            return (node.step,)
        case ParallelNode() | ConditionalNode():
            return node.steps
        case _:
            return ()


def ids_of(node: Node) -> tuple[str, ...]:
    """The ids under which a node leaves records."""
    if isinstance(node, SleepNode | SleepUntilNode):
        return (node.id,)
    return tuple(step.id for step in steps_of(node))


def step_json(step: AnyStep) -> dict[str, Any]:
    """A step as the serialized graph shows it."""
    shown: dict[str, Any] = {"id": step.id}
    if step.description:
        shown["description"] = step.description
    if step.metadata:
        shown["metadata"] = dict(step.metadata)
    if isinstance(step, Step):
        if step.component:
            shown["component"] = step.component
        return shown | {"canSuspend": step.schemas.suspend is not None or step.schemas.resume is not None}
    return shown | {
        "component": "WORKFLOW",
        "serializedStepFlow": step.serialized_step_graph,
        "canSuspend": False,
    }


def source_of(function: Callable[..., Any]) -> str:
    """The source text of a function, shortened, for people who look at the graph."""
    try:
        return _source_of(function)
    except TypeError:  # an object that can be called, and has no hash
        return _source_of.__wrapped__(function)


@lru_cache(maxsize=1000)  # each run stores its graph, and to find a source takes long
def _source_of(function: Callable[..., Any]) -> str:
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):
        source = getattr(function, "__name__", repr(function))
    return source.strip()[:_SOURCE_LIMIT]
