"""Where a leg begins: pure plans from a stored snapshot and what the caller asked.

Called by `run` (to refuse early) and by the runners (to begin).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import orjson

from flowctl.errors import AmbiguousStepError, NotSuspendedError
from flowctl.execution.paths import bare_path, leaf_paths
from flowctl.snapshot import Snapshot

if TYPE_CHECKING:
    from flowctl.workflow import Workflow

LARGEST_EVENT_BYTES = 128 * 1024
LARGEST_ANSWER_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class Leg:
    """One stretch of a run, from a start or resume to the next stop.

    One that `continues` goes on in the middle of another, unseen: what that one came to stands, failures
    too, and `settled` are the keys that it has resumed and that are suspended again.
    """

    kind: Literal["start", "resume", "restart", "time-travel"]
    snapshot: Snapshot
    targets: tuple[str, ...] = ()
    item: int | None = None
    resume_data: Any = None
    per_step: bool = False
    continues: bool = False
    settled: tuple[str, ...] = ()

    def resumes(self, key: str) -> bool:
        """Whether the suspended record under this key is one that was asked to go on."""
        if not self.targets or key in self.settled:
            return False
        bare = ".".join(bare_path(key))
        return bare in self.targets and (self.item is None or "[" not in key or f"[{self.item}]" in key)

    def to_json(self) -> dict[str, Any]:
        """What the leg is about, without the snapshot it begins from."""
        return {
            "kind": self.kind,
            "targets": list(self.targets),
            "item": self.item,
            "resumeData": self.resume_data,
            "perStep": self.per_step,
            "continues": self.continues,
            "settled": list(self.settled),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], snapshot: Snapshot) -> Leg:
        """The leg of its JSON form."""
        return cls(
            kind=data["kind"],
            snapshot=snapshot,
            targets=tuple(data.get("targets", ())),
            item=data.get("item"),
            resume_data=data.get("resumeData"),
            per_step=bool(data.get("perStep")),
            continues=bool(data.get("continues")),
            settled=tuple(data.get("settled", ())),
        )


def plan_start(snapshot: Snapshot, *, per_step: bool = False) -> Leg:
    """From the beginning."""
    return Leg("start", snapshot, per_step=per_step)


def plan_restart(snapshot: Snapshot) -> Leg:
    """From where an interrupted run stopped: finished records stand, begun ones run again, sleeps go on."""
    return Leg("restart", snapshot)


def plan_continuation(leg: Leg, snapshot: Snapshot, settled: Sequence[str]) -> Leg:
    """From where a leg that has become long stands now."""
    return replace(leg, kind="restart", snapshot=snapshot, continues=True, settled=(*leg.settled, *settled))


def dispatch_body(leg: Leg, resource_id: str | None) -> dict[str, Any]:
    """A leg as the data of its event; of what is stored of the run only a first leg repeats a little."""
    snapshot = leg.snapshot
    body: dict[str, Any] = {"runId": snapshot.run_id, "resourceId": resource_id, **leg.to_json()}
    if leg.kind != "start":
        return body
    given = {
        "inputData": snapshot.input,
        "initialState": snapshot.state,
        "requestContext": snapshot.request_context,
    }
    return body | given if len(orjson.dumps(given)) <= LARGEST_EVENT_BYTES else body


@dataclass(frozen=True, slots=True)
class ResumeTarget:
    """What a resume names: dotted paths of suspended steps and, in a foreach, an item."""

    paths: tuple[str, ...]
    item: int | None = None


def plan_resume(
    workflow: Workflow[Any, Any],
    snapshot: Snapshot,
    *,
    step: str | Sequence[str] | None = None,
    label: str | None = None,
    item: int | None = None,
) -> ResumeTarget:
    """Which suspended steps a resume means; raises NotSuspendedError or AmbiguousStepError."""
    if snapshot.status != "suspended":
        raise NotSuspendedError(
            f"This workflow run was not suspended: run {snapshot.run_id!r} of {workflow.id!r} "
            f"is {snapshot.status}."
        )
    open_paths = [".".join(path) for path in leaf_paths(snapshot.records)]
    if label is not None:
        return _labeled(snapshot, label, open_paths, item)
    if step is None:
        return _with_item(snapshot, _only(open_paths), item)
    wanted = step if isinstance(step, str) else ".".join(step)
    chosen = [path for path in open_paths if path == wanted or path.startswith(f"{wanted}.")]
    if not chosen:
        raise NotSuspendedError(
            f'This workflow step "{wanted}" was not suspended. '
            f"Available suspended steps: [{', '.join(open_paths)}]"
        )
    return _with_item(snapshot, _only(chosen), item)


def _with_item(snapshot: Snapshot, path: str, item: int | None) -> ResumeTarget:
    waiting = {
        int(index)
        for key, record in snapshot.records.items()
        if record.status == "suspended" and ".".join(bare_path(key)) == path
        for index in re.findall(r"\[(\d+)\]", key)
    }
    if item is not None and item not in waiting:
        raise NotSuspendedError(
            f"Step {path!r} was not suspended for item {item}. Suspended items: {sorted(waiting)}"
        )
    return ResumeTarget((path,), item)


def same_suspension(target: ResumeTarget, before: Snapshot, now: Snapshot) -> bool:
    """Whether what is to be resumed was suspended before, and not resumed and suspended again since."""
    return bool(_open(target, before) & _open(target, now))


def _open(target: ResumeTarget, snapshot: Snapshot) -> set[tuple[str, int | None, int | None]]:
    return {
        (key, record.suspended_at, record.resumed_at)
        for key, record in snapshot.records.items()
        if record.status == "suspended" and ".".join(bare_path(key)) in target.paths
    }


def _labeled(snapshot: Snapshot, label: str, open_paths: Sequence[str], item: int | None) -> ResumeTarget:
    named = snapshot.resume_labels.get(label)
    if named is None or named["stepId"] not in open_paths:
        waiting = sorted(name for name, at in snapshot.resume_labels.items() if at["stepId"] in open_paths)
        raise NotSuspendedError(
            f"A step labeled {label!r} was not suspended. Available labels: [{', '.join(waiting)}]"
        )
    return ResumeTarget((named["stepId"],), named.get("foreachIndex", item))


def _only(paths: Sequence[str]) -> str:
    if not paths:
        raise NotSuspendedError("No suspended steps found in this workflow run; it was not suspended.")
    if len(paths) > 1:
        listed = ", ".join(f"[{path}]" for path in paths)
        raise AmbiguousStepError(
            f"Multiple suspended steps found: {listed}. "
            'Please specify which step to resume using the "step" parameter.'
        )
    return paths[0]
