"""Runs that an app's own HTTP endpoint begins: the SDK answers its caller, and reports the steps meanwhile.

Called by `checkpoint_api`; each report is one transaction. As soon as a step has to wait, the run goes on as
any other: the engine repeats the HTTP request that began it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flowctl.engine import statements as sql
from flowctl.engine import tokens
from flowctl.engine.apps import Apps
from flowctl.engine.checkpoints import CheckpointError, check_size, is_finished_step, memo_of
from flowctl.engine.ledger import Ledger
from flowctl.engine.protocol import DEFAULT_RETRIES, Event, Function, InvalidEventError, is_ulid, parse_event
from flowctl.engine.starts import ABANDONED, CALL, DISCOVERY
from flowctl.engine.store import RunRow
from flowctl.engine.turn import (
    BACKOFF_MS,
    Call,
    Effect,
    Finish,
    Reply,
    Retry,
    asides,
    effects_of,
    finish_endpoint,
    is_deferral,
)

ABANDONED_MS = 3_600_000
TOKEN_SECRET = "run tokens"  # noqa: S105 - the name of one


class RunExistsError(CheckpointError):
    """A run with this id began before."""

    http_status = 409


class UnknownRunError(CheckpointError):
    """There is no such run."""

    http_status = 404


@dataclass(slots=True)
class Endpoints:
    """Begins and advances such runs."""

    ledger: Ledger
    apps: Apps
    backoff: Sequence[int] = BACKOFF_MS

    def begin(self, sent: Mapping[str, Any], *, now: int) -> RunRow:
        """A run that an endpoint has begun, with the steps so far; raises CheckpointError."""
        run_id, event = _begun(sent, now)
        store, function = self.ledger.store, self._function(event, sent.get("retries"))
        with store.transaction():
            if store.run(run_id) is not None:
                raise RunExistsError("Run already exists")
            url = f"{event.data.get('domain')}{event.data.get('path')}"
            store.put_run(run_id, function, event.internal_id, [event.to_json()], now=now, url=url)
            store.enqueue(run_id, ABANDONED, ABANDONED, now + ABANDONED_MS)
            self.ledger.intake(event)
            self._report(run_id, function, sent, now)
            run = store.run(run_id)
        self.ledger.wake()
        if run is None:
            raise UnknownRunError(f"no run {run_id}")
        return run

    def report(self, run_id: str, sent: Mapping[str, Any], *, now: int) -> None:
        """More steps of such a run; what comes after its end is ignored. Raises CheckpointError."""
        store = self.ledger.store
        with store.transaction():
            run = store.run(run_id)
            function = self.ledger.functions.get(run.slug) if run else None
            if run is None or function is None:
                raise UnknownRunError("run not found in state store")
            if run.ended_at is None:
                self._report(run_id, function, sent, now)
        self.ledger.wake()

    def app_id(self, run: RunRow) -> str:
        """The app whose endpoint began a run."""
        return self.ledger.functions[run.slug].app_id

    def token(self, run_id: str) -> str:
        """Lets its bearer read a run's output."""
        return tokens.signed({"run_id": run_id}, self.ledger.store.secret(TOKEN_SECRET))

    def run_of(self, token: str) -> RunRow | None:
        """The run whose output a token lets its bearer read."""
        claims = tokens.claims_of(token, self.ledger.store.secret(TOKEN_SECRET))
        return self.ledger.store.run(str(claims.get("run_id"))) if claims else None

    def _function(self, event: Event, retries: Any) -> Function:
        attempts = retries if isinstance(retries, int) and retries >= 0 else DEFAULT_RETRIES
        config = endpoint_function(event.data, attempts)
        domain = str(event.data["domain"])
        self.apps.put_endpoint(domain, config)
        return self.ledger.functions[config["id"]]

    def _report(self, run_id: str, function: Function, sent: Mapping[str, Any], now: int) -> None:
        store, opcodes = self.ledger.store, sent.get("steps") or ()
        run = store.run(run_id)
        finished = [memo_of(opcode) for opcode in opcodes if is_finished_step(opcode)]
        passing = [opcode for opcode in opcodes if is_finished_step(opcode) or is_deferral(opcode)]
        self.ledger.keep_steps(run_id, finished, asides(passing), now=now)
        check_size(store.state_size(run_id))
        call = Call(DISCOVERY, attempt=0, max_attempts=function.max_attempts, now=now, backoff=self.backoff)
        effects = endpoint_effects(opcodes, call)
        if run is None or not effects:
            return
        store.db.execute(sql.DELETE_TIMERS_OF_RUN, (run_id, ABANDONED))
        for effect in effects:
            if isinstance(effect, Retry):
                store.db.execute(sql.PUT_RETRY, (run_id, DISCOVERY, CALL, effect.due, effect.attempt))
            else:
                self.ledger.carry_out(run, effect, now)


def endpoint_function(asked: Mapping[str, Any], retries: int) -> dict[str, Any]:
    """The registration of an endpoint as a function, by the HTTP request that began a run."""
    name = str(asked.get("fn") or f"{asked.get('method')} {asked.get('path')}")
    runtime = {"type": "http", "url": str(asked["domain"])}
    return {
        "id": f"{asked['domain']} {name}",
        "name": name,
        "triggers": [],
        "endpoint": {"method": str(asked.get("method") or "POST")},
        "steps": {"step": {"id": "step", "name": name, "runtime": runtime, "retries": {"attempts": retries}}},
    }


def endpoint_effects(opcodes: Sequence[Mapping[str, Any]], call: Call) -> list[Effect]:
    """What the opcodes that are no finished steps do to their run."""
    others = [op for op in opcodes if not is_finished_step(op) and not is_deferral(op)]
    try:
        return [
            effect
            for opcode in others
            for effect in (_ended(opcode) or effects_of(Reply(206, {}, opcode), call))
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as err:
        raise CheckpointError(f"invalid request body: {err!r}") from err


def _ended(opcode: Mapping[str, Any]) -> list[Finish] | None:
    return [finish_endpoint(opcode.get("data"))] if opcode.get("op") == "RunComplete" else None


def _begun(sent: Mapping[str, Any], now: int) -> tuple[str, Event]:
    run_id = str(sent.get("run_id") or "")
    if not is_ulid(run_id):
        raise CheckpointError(f"Invalid request body: {run_id!r} is no run id")
    try:
        event = parse_event(sent.get("event"), now=now)
    except InvalidEventError as err:
        raise CheckpointError(f"Invalid request body: {err}") from err
    if not event.data.get("domain"):
        raise CheckpointError("Invalid request body: the event's data has no domain")
    return run_id, event
