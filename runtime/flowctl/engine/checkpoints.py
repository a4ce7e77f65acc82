"""Checkpoints: steps that an SDK reports while its request goes on, so that one request runs many steps.

Called by `checkpoint_api`; writes through `ledger`, each checkpoint in one transaction. A request whose job
was taken anew meanwhile (its connection broke, or the engine restarted) is stale: it learns so and ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flowctl.engine import statements as sql
from flowctl.engine.ledger import Ledger
from flowctl.engine.limits import MAX_STATE_BYTES, MAX_STEP_BYTES
from flowctl.engine.protocol import dispatch_id, referenced_job
from flowctl.engine.store import StateSize
from flowctl.engine.turn import Memoize, asides, shown_name

_FINISHED_STEPS = frozenset({"Step", "StepRun"})
_PASSING_OPCODES = _FINISHED_STEPS | {"StepPlanned", "DeferAdd", "DeferAbort"}
_SYNC_OPCODES = _PASSING_OPCODES | {"StepFailed", "RunComplete", "SyncRunComplete"}


class CheckpointError(Exception):
    """A checkpoint that is refused; nothing of it was kept."""

    http_status = 400


class StaleDispatchError(CheckpointError):
    """The request that reports steps is no longer the one that executes the run."""

    http_status = 409


class CheckpointTooLargeError(CheckpointError):
    """The steps would exceed a limit."""

    http_status = 413


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Which request an SDK says that it is answering."""

    job_id: int | None
    generation: int | None
    request_id: str

    @classmethod
    def of(cls, sent: Mapping[str, Any]) -> Dispatch:
        """From a checkpoint's body."""
        generation = sent.get("generation_id")
        return cls(
            job_id=referenced_job(str(sent.get("qi_id") or "")),
            generation=generation if isinstance(generation, int) and generation > 0 else None,
            request_id=str(sent.get("request_id") or ""),
        )


@dataclass(slots=True)
class Checkpoints:
    """Takes the steps of requests under way."""

    ledger: Ledger

    def keep(self, run_id: str, sent: Mapping[str, Any], *, now: int) -> None:
        """Remember the steps of a request that the engine made; raises CheckpointError."""
        opcodes = sent.get("steps") or ()
        dispatch, steps = Dispatch.of(sent), finished_steps(opcodes)
        store = self.ledger.store
        with store.transaction():
            run = store.run(run_id)
            if run is None:
                raise CheckpointError("run not found in state store")
            if run.ended_at is not None:
                raise StaleDispatchError(f"stale dispatch: the run is {run.status.lower()}")
            self._check(run_id, dispatch)
            self.ledger.keep_steps(run_id, steps, asides(opcodes), now=now)
            check_size(store.state_size(run_id))
            store.db.execute(sql.RESET_ATTEMPT, (dispatch.job_id,))

    def _check(self, run_id: str, dispatch: Dispatch) -> None:
        if dispatch.job_id is None:  # an SDK that does not say is believed, as the real server does
            return
        row = self.ledger.store.db.execute(sql.READ_DISPATCH, (dispatch.job_id,)).fetchone()
        if row is None or row[0] != run_id:
            raise StaleDispatchError("stale dispatch: queue item not found")
        if reason := staleness(dispatch, row[1]):
            raise StaleDispatchError(f"stale dispatch: {reason}")


def check_size(size: StateSize) -> None:
    """Refuse what was just written when it is too much: the raised error undoes the transaction."""
    if size.largest > MAX_STEP_BYTES:
        raise CheckpointTooLargeError("step output size is greater than the limit")
    if size.total > MAX_STATE_BYTES:
        raise CheckpointTooLargeError("run state size limit exceeded: state is too large")


def is_finished_step(opcode: Mapping[str, Any]) -> bool:
    """Whether an opcode reports the output of a step."""
    return opcode.get("op") in _FINISHED_STEPS


def memo_of(opcode: Mapping[str, Any]) -> Memoize:
    """What is remembered of a finished step; raises CheckpointError."""
    if not opcode.get("id"):
        raise CheckpointError("invalid request body: a step has no id")
    return Memoize(str(opcode["id"]), {"data": opcode.get("data")}, shown_name(opcode))


def finished_steps(opcodes: Sequence[Mapping[str, Any]]) -> list[Memoize]:
    """The steps among opcodes that a request may report while it goes on; raises CheckpointError."""
    kinds = [str(opcode.get("op")) for opcode in opcodes]
    if not _SYNC_OPCODES.issuperset(kinds):
        raise CheckpointError("cannot checkpoint async steps")
    if ending := next((kind for kind in kinds if kind not in _PASSING_OPCODES), None):
        raise CheckpointError(f"cannot checkpoint opcode: {ending}")
    return [memo_of(opcode) for opcode in opcodes if is_finished_step(opcode)]


def staleness(dispatch: Dispatch, generation: int) -> str | None:
    """Why a request is not the newest of its job, or None when it is."""
    if dispatch.generation is not None:
        if dispatch.generation == generation:
            return None
        return f"dispatch generation {dispatch.generation} does not match queue item generation {generation}"
    newest = dispatch_id(0, dispatch.job_id or 0, generation)
    if dispatch.request_id and dispatch.request_id[10:] != newest[10:]:
        return f"request {dispatch.request_id} is not the one being executed"
    return None
