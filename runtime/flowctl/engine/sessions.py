"""Sessions: names under which runs are grouped, carried by events in `meta`. Pure; called by `protocol`.

What a sender set (`sessions`) is joined with what an SDK passes on from the run that sends
(`propagated_sessions`): the sender's own win, null takes one away, and null for the whole takes all away.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MAX_SESSIONS, MAX_KEY_BYTES, MAX_ID_BYTES = 5, 128, 512


def resolved(meta: Any) -> dict[str, Any]:
    """An event's `meta` as it is kept: `{"sessions": {name: id}}`, or empty; raises ValueError."""
    if meta is None:
        return {}
    if not isinstance(meta, Mapping):
        raise ValueError("event meta must be an object")  # noqa: TRY004 - a sender's mistake, as the others
    sessions = _joined(meta)
    _check(sessions)
    return {"sessions": sessions} if sessions else {}


def _joined(meta: Mapping[str, Any]) -> dict[str, str]:
    own, inherited = _entries(meta.get("sessions", {})), _entries(meta.get("propagated_sessions"))
    kept = {name: _id(name, id) for name, id in (own or {}).items() if id is not None}
    if own is None:
        return kept
    for name in sorted((inherited or {}).keys() - own.keys()):
        if len(kept) < MAX_SESSIONS:
            kept[name] = _id(name, (inherited or {})[name])
    return kept


def _entries(raw: Any) -> Mapping[str, Any] | None:
    if raw is not None and not isinstance(raw, Mapping):
        raise ValueError("event sessions must be an object")
    return raw


def _id(name: str, id: Any) -> str:
    if isinstance(id, bool) or not isinstance(id, str | int | float):
        raise ValueError(f"event session {name!r} must be a string")  # noqa: TRY004 - as above
    return str(id)


def _check(sessions: Mapping[str, str]) -> None:
    if len(sessions) > MAX_SESSIONS:
        raise ValueError(f"event sessions can include at most {MAX_SESSIONS} entries")
    for name, id in sessions.items():
        if not 0 < len(name.encode()) <= MAX_KEY_BYTES:
            raise ValueError(f"event session key {name!r} must have 1 to {MAX_KEY_BYTES} bytes")
        if not 0 < len(id.encode()) <= MAX_ID_BYTES:
            raise ValueError(f"the ID of event session {name!r} must have 1 to {MAX_ID_BYTES} bytes")
