"""Bulk cancellations: a function's runs that started in a time span and fit a condition.

Called by `rest`. Runs are ended at once, in the transaction that notes the cancellation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from flowctl.engine import rest_statements as sql
from flowctl.engine.answers import RequestError
from flowctl.engine.expressions import InvalidExpressionError, compiled
from flowctl.engine.ledger import Ledger
from flowctl.engine.protocol import ACCOUNT_ID, ENVIRONMENT_ID, iso, new_ulid, stable_id, time_ms

CLOCK_TOLERANCE_MS = 5_000


@dataclass(frozen=True, slots=True)
class Cancellation:
    """What is to be ended; times in epoch milliseconds."""

    id: str
    name: str | None
    app_id: str
    function_id: str
    started_after: int | None
    started_before: int
    condition: str | None
    created_at: int

    @property
    def slug(self) -> str:
        """The function's full id."""
        return f"{self.app_id}-{self.function_id}"

    @classmethod
    def of(cls, sent: Mapping[str, Any], *, now: int) -> Cancellation:
        """Of a request; raises RequestError that names every field that is wrong."""
        missing = [name for name in ("app_id", "function_id", "started_before") if not sent.get(name)]
        if missing:
            raise RequestError("; ".join(f"{name} is required" for name in missing))
        before, after = _time(sent, "started_before"), None
        if sent.get("started_after"):
            after = _time(sent, "started_after")
        if before > now + CLOCK_TOLERANCE_MS:
            raise RequestError("started_before must be in the past")
        if after is not None and after > before:
            raise RequestError("started_after must be before started_before")
        condition = _condition(sent.get("if"))
        app_id, function_id = str(sent["app_id"]), str(sent["function_id"])
        return cls(new_ulid(now), sent.get("name"), app_id, function_id, after, before, condition, now)

    def to_json(self) -> dict[str, Any]:
        """As the API shows it."""
        return {
            "id": self.id,
            "name": self.name,
            "created_at": iso(self.created_at),
            "account_id": ACCOUNT_ID,
            "environment_id": ENVIRONMENT_ID,
            "app_id": stable_id("app", self.app_id),
            "function_id": self.slug,
            "function_internal_id": stable_id("function", self.slug),
            "started_after": None if self.started_after is None else iso(self.started_after),
            "started_before": iso(self.started_before),
            "if": self.condition,
            "kind": "bulk_run",
            "cause": "api",
        }


@dataclass(frozen=True, slots=True)
class Cancellations:
    """What was cancelled in bulk."""

    ledger: Ledger

    def create(self, cancellation: Cancellation) -> dict[str, Any]:
        """End the runs and note it, in one transaction."""
        shown, store = cancellation.to_json(), self.ledger.store
        with store.transaction():
            store.db.execute(sql.PUT_CANCELLATION, (cancellation.id, orjson.dumps(shown)))
            self.ledger.cancel_many(
                cancellation.slug,
                cancellation.condition,
                after=cancellation.started_after or 0,
                before=cancellation.started_before,
                now=cancellation.created_at,
            )
        self.ledger.wake()
        return shown

    def all(self) -> list[dict[str, Any]]:
        """The newest first."""
        rows = self.ledger.store.db.execute(sql.ALL_CANCELLATIONS).fetchall()
        return [orjson.loads(body) for (body,) in rows]

    def delete(self, id: str) -> bool:
        """Forget one; False when there is none."""
        with self.ledger.store.transaction():
            return self.ledger.store.db.execute(sql.DELETE_CANCELLATION, (id,)).rowcount == 1


def _time(sent: Mapping[str, Any], name: str) -> int:
    try:
        return time_ms(str(sent[name]))
    except ValueError as err:
        raise RequestError(f"{name} is no ISO time: {sent[name]!r}") from err


def _condition(text: Any) -> str | None:
    if not text:
        return None
    try:
        compiled(str(text))
    except InvalidExpressionError as err:
        raise RequestError(f"invalid expression: {err}") from err
    return str(text)
