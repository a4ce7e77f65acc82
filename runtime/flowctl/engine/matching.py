"""Where those that wait for an event are found: by a value that it must have, so that an index can be used.

Called by `waits`. Pure; what is found is a superset of those whose condition holds.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

_PATH = r"(?:event|async)(?:\.[A-Za-z_]\w*)+"
_LITERAL = r"'[^'\\]*'|\"[^\"\\]*\"|-?\d+(?:\.\d+)?|true|false"
_EQUALITY = re.compile(rf"\s*({_PATH})\s*==\s*({_PATH}|{_LITERAL})\s*")
_TERM = r"(?:[^\"'&|?(){}\[\]]|\"[^\"\\]*\"|'[^'\\]*')+"
"""Text without operators but comparisons: of its kind are the parts of a plain conjunction."""
_CONJUNCTION = re.compile(rf"{_TERM}(?:&&{_TERM})*")


class Key(NamedTuple):
    """The event to come has at `path` the value whose `digest` this is; both empty when none is told."""

    path: str = ""
    digest: str = ""


def key_of(condition: str | None, event: Mapping[str, Any]) -> Key:
    """What an event must have to meet the condition of a run that another `event` began."""
    found = _equality(condition or "")
    if found is None:
        return Key()
    path, other = found
    value = _at(other.removeprefix("event."), event) if other.startswith("event.") else _literal(other)
    return Key(path, _digest(value))


def key_at(path: str, event: Mapping[str, Any]) -> Key:
    """What an event has at a path."""
    return Key(path, _digest(_at(path, event))) if path else Key()


@lru_cache(maxsize=1024)
def _equality(condition: str) -> tuple[str, str] | None:
    """The path in the event to come and what it must equal, of the first such part of a conjunction."""
    if not _CONJUNCTION.fullmatch(condition):
        return None
    for term in re.findall(_TERM, condition):
        if (equality := _EQUALITY.fullmatch(term)) is None:
            continue
        sides = sorted(equality.groups(), key=lambda side: not side.startswith("async."))
        if sides[0].startswith("async.") and not sides[1].startswith("async."):
            return sides[0].removeprefix("async."), sides[1]
    return None


def _literal(text: str) -> Any:
    return text[1:-1] if text[0] in "'\"" else orjson.loads(text)


def _at(path: str, event: Mapping[str, Any]) -> Any:
    """What is not there counts as null."""
    value: Any = event
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _digest(value: Any) -> str:
    encoded = orjson.dumps(_plain(value), option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(encoded, digest_size=12).hexdigest()


def _plain(value: Any) -> Any:
    """Numbers are equal whatever their kind."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value)) if abs(value) >= 2**63 else int(value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return value
