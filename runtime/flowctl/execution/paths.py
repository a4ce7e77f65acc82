"""Record keys (`outer[0]/inner`) and the paths that users see (`["outer", "inner"]`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowctl.snapshot import StepResult


def bare_path(key: str) -> list[str]:
    """A key as a path of ids, items left out."""
    return [part.partition("[")[0] for part in key.split("/")]


META = "__workflow_meta"


def with_meta(payload: Any, **facts: Any) -> Any:
    """A suspend payload that also says where it comes from; one that is no object stays as it is."""
    if payload is not None and not isinstance(payload, Mapping):
        return payload
    given: Mapping[str, Any] = payload or {}
    return {**given, META: {**given.get(META, {}), **facts}}


def without_meta(payload: Any) -> Any:
    """A suspend payload as the step gave it."""
    if not isinstance(payload, Mapping):
        return payload
    given: Mapping[str, Any] = payload
    return {name: value for name, value in given.items() if name != META}


def label_target(key: str) -> dict[str, Any]:
    """What a resume label points at: the step's path and, in a foreach, the item."""
    head, bracket, rest = key.partition("[")
    if not bracket:
        return {"stepId": key.replace("/", ".")}
    index, _, tail = rest.partition("]")
    return {"stepId": (head + tail).replace("/", "."), "foreachIndex": int(index)}


def leaf_paths(records: Mapping[str, StepResult]) -> list[list[str]]:
    """The paths of suspended steps: for a nested one its ids from the outside in."""
    suspended = [key for key, record in records.items() if record.status == "suspended"]
    paths: list[list[str]] = []
    for key in suspended:
        inner = any(other.startswith((f"{key}/", f"{key}[")) for other in suspended)
        path = bare_path(key)
        if not inner and path not in paths:
            paths.append(path)
    return paths
