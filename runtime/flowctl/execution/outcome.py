"""What operations come to, as data that is remembered and replayed."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from flowctl.errors import NonRetriableError
from flowctl.schema import to_json
from flowctl.snapshot import RunError, StepResult

_CAUSE_DEPTH = 5


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one try of a step: its record and what it changed beside it.

    A settled one is what an earlier leg came to, and this leg did not touch. `order` says when it
    came among those that change what others see.
    """

    record: StepResult
    state: Mapping[str, Any] = field(default_factory=dict[str, Any])
    context_set: Mapping[str, Any] = field(default_factory=dict[str, Any])
    context_deleted: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    bailed: bool = False
    aborted: bool = False
    retriable: bool = True
    again: bool | None = None
    settled: bool = False
    order: int = 0

    def to_memo(self) -> dict[str, Any]:
        """JSON data; the payload is left out, the walk knows it."""
        record = self.record.to_json(stack=True)
        record.pop("payload", None)
        changes = {
            "state": dict(self.state),
            "contextSet": dict(self.context_set),
            "contextDeleted": list(self.context_deleted),
            "labels": list(self.labels),
            "bailed": self.bailed,
            "aborted": self.aborted,
            "again": self.again,
            "order": self.order,
        }
        memo = {"record": record} | {name: value for name, value in changes.items() if value}
        return memo if self.retriable else memo | {"retriable": False}

    @classmethod
    def from_memo(cls, memo: Mapping[str, Any], payload: Any) -> Outcome:
        """The outcome of its memo."""
        return cls(
            record=StepResult.from_json({**memo["record"], "payload": payload}),
            state=memo.get("state", {}),
            context_set=memo.get("contextSet", {}),
            context_deleted=tuple(memo.get("contextDeleted", ())),
            labels=tuple(memo.get("labels", ())),
            bailed=memo.get("bailed", False),
            aborted=memo.get("aborted", False),
            retriable=memo.get("retriable", True),
            again=memo.get("again"),
            order=memo.get("order", 0),
        )


@dataclass(frozen=True, slots=True)
class Flow:
    """Where the walk stands after a node: go on with an output, or stop and why.

    An output that `is_kept` lies in storage.
    """

    kind: Literal["next", "suspended", "failed", "bailed", "paused", "canceled"]
    output: Any = None
    error: RunError | None = None
    is_kept: bool = False

    @property
    def goes_on(self) -> bool:
        """Whether the next node runs."""
        return self.kind == "next"


def error_of(err: BaseException, *, depth: int = _CAUSE_DEPTH) -> RunError:
    """An exception as data: name, message, own attributes, causes."""
    attributes: dict[str, Any] = {}
    for name, value in vars(err).items():
        if name.startswith("_"):
            continue
        try:
            attributes[name] = to_json(value)
        except TypeError:
            continue
    cause = err.__cause__ or (None if err.__suppress_context__ else err.__context__)
    return RunError(
        name=type(err).__name__,
        message=_message(err),
        stack="".join(traceback.format_exception(err, limit=-20)),
        cause=error_of(cause, depth=depth - 1) if cause is not None and depth > 0 else None,
        attributes={k: v for k, v in attributes.items() if k not in {"name", "message", "stack", "cause"}},
    )


def _message(err: BaseException) -> str:
    try:
        return str(err)
    except Exception:  # noqa: BLE001 - the user's own `__str__`
        return "This error has no message: its __str__ failed."


def is_retriable(err: BaseException) -> bool:
    """Whether trying again may help: not when the error, or one of its causes, says it cannot."""
    return not any(
        isinstance(known, NonRetriableError) or type(known).__name__ == "NonRetriableError"
        for known in _with_causes(err)
    )


def _with_causes(err: BaseException) -> list[BaseException]:
    """The error and what it came from, each once: causes may form a ring."""
    known, cause = [err], err.__cause__
    while cause is not None and all(cause is not other for other in known):
        known.append(cause)
        cause = cause.__cause__
    return known
