"""What SDKs note about runs and steps beside their outputs: scores, usage of models, experiments.

Called by `rest` and `ledger`, read by `queries`. A note has a kind and values; later ones of its kind are
combined with what is there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from flowctl.engine import statements as sql
from flowctl.engine.prices import with_cost
from flowctl.engine.protocol import iso
from flowctl.engine.store import Store
from flowctl.engine.turn import Note

AI = "inngest.ai"
MAX_KIND, MAX_VALUES_BYTES = 128, 64 * 2**10
INNGEST_KINDS = frozenset(
    f"inngest.{kind}"
    for kind in ("ai", "http", "http.timing", "response_headers", "warnings", "experiment", "score")
)
OPERATIONS = ("merge", "set", "delete", "add")


class InvalidMetadataError(ValueError):
    """What was sent is no metadata."""


@dataclass(frozen=True, slots=True)
class RunMetadata:
    """The notes of a store's runs; the methods that write belong inside its transaction."""

    store: Store

    def add(self, run_id: str, notes: Sequence[Note], *, now: int) -> None:
        """Combine notes with those that are there; raises InvalidMetadataError for what is too large."""
        for note in notes:
            key = (run_id, note.step_id, note.kind)
            row = self.store.db.execute(sql.READ_METADATA, key).fetchone()
            values = combined(orjson.loads(row[0]) if row else {}, note.operation, _complete(note))
            body = orjson.dumps(values)
            if len(body) > MAX_VALUES_BYTES:
                raise InvalidMetadataError(f"metadata of kind {note.kind!r} exceeds {MAX_VALUES_BYTES} bytes")
            self.store.db.execute(sql.PUT_METADATA, (*key, body, now))

    def of(self, run_id: str) -> dict[str, list[dict[str, Any]]]:
        """The notes of a run by step, those of the run itself under the empty id."""
        found: dict[str, list[dict[str, Any]]] = {}
        for step_id, kind, body, at in self.store.db.execute(sql.METADATA_OF_RUN, (run_id,)).fetchall():
            scope = "step" if step_id else "run"
            note = {"scope": scope, "kind": kind, "values": orjson.loads(body), "updatedAt": iso(at)}
            found.setdefault(step_id, []).append(note)
        return found


def combined(known: Mapping[str, Any], operation: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values after an operation: `merge` and `set` put, `delete` takes away, `add` sums numbers."""
    match operation:
        case "set":
            return dict(values)
        case "delete":
            return {key: value for key, value in known.items() if key not in values}
        case "add":
            return {**known, **{key: _sum(known.get(key), value) for key, value in values.items()}}
        case _:
            return {**known, **values}


def _complete(note: Note) -> Mapping[str, Any]:
    """A note's values, of a model's usage with what it cost."""
    return with_cost(note.values) if note.kind == AI and note.operation != "delete" else note.values


def notes_of(raw: Any, step_id: str) -> list[Note]:
    """Notes as they are sent, `[{"kind", "op", "values"}]`; raises InvalidMetadataError."""
    if not isinstance(raw, list):
        raise InvalidMetadataError("metadata must be a list")
    return [_note(entry, step_id) for entry in raw]


def hashed_step(id: str, index: int) -> str:
    """The id that a step has on the wire, by the id that its author gave it."""
    return hashlib.sha1(f"{id}:{index}".encode() if index else id.encode()).hexdigest()  # noqa: S324 - SDKs' ids


def _note(entry: Any, step_id: str) -> Note:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("values"), Mapping):
        raise InvalidMetadataError("metadata needs a kind and an object of values")
    kind, operation = str(entry.get("kind") or ""), str(entry.get("op") or "merge").lower()
    if not 0 < len(kind) <= MAX_KIND:
        raise InvalidMetadataError(f"metadata needs a kind of 1 to {MAX_KIND} characters")
    if kind.startswith("inngest.") and kind not in INNGEST_KINDS:
        raise InvalidMetadataError(
            f"metadata kind {kind!r} is reserved; choose one that begins with 'userland.'"
        )
    if operation not in OPERATIONS:
        raise InvalidMetadataError(f"{operation!r} is no operation on metadata; choose one of {OPERATIONS}")
    return Note(step_id, kind, operation, entry["values"])


def _sum(known: Any, value: Any) -> Any:
    numbers = [v for v in (known, value) if isinstance(v, int | float) and not isinstance(v, bool)]
    return sum(numbers) if len(numbers) == 2 else value if known is None else known
