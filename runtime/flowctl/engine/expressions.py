"""Expressions over `event` and `async`, compiled once; plain paths and equalities need no CEL program."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

Facts = Mapping[str, Any]
Expression = Callable[[Facts], Any]

_PATH = r"(?:event|async)(?:\.[A-Za-z_]\w*)+"
_ONE_PATH = re.compile(rf"\s*{_PATH}\s*")
_EQUALITY = re.compile(rf"\s*({_PATH})\s*==\s*(?:({_PATH})|'([^'\\]*)'|\"([^\"\\]*)\")\s*")


class InvalidExpressionError(ValueError):
    """The text is no CEL expression."""


def holds(text: str | None, facts: Facts) -> bool:
    """Whether a condition is true; one that cannot be evaluated on these facts is not."""
    if not text:
        return True
    try:
        value = compiled(text)(facts)
    except InvalidExpressionError:
        return False
    return bool(value) or isinstance(value, list | dict)


@lru_cache(maxsize=1024)
def compiled(text: str) -> Expression:
    """An expression ready to be evaluated; a path, or the equality of two, needs no CEL program."""
    if _ONE_PATH.fullmatch(text):
        return _path(text.strip())
    equality = _EQUALITY.fullmatch(text)
    return _program(text) if equality is None else _comparison(*equality.groups())


def _path(path: str) -> Expression:
    def evaluate(facts: Facts) -> Any:
        try:
            return _lookup(facts, path)
        except (KeyError, TypeError):
            return None

    return evaluate


def _comparison(left: str, right: str | None, single: str | None, double: str | None) -> Expression:
    constant = single if single is not None else double

    def evaluate(facts: Facts) -> bool:
        try:
            other = constant if right is None else _lookup(facts, right)
            found = _lookup(facts, left)
            return found == other and isinstance(found, bool) == isinstance(other, bool)
        except (KeyError, TypeError):
            return False

    return evaluate


def _lookup(facts: Facts, path: str) -> Any:
    value: Any = facts
    for name in path.split("."):
        value = value[name]
    return value


def _program(text: str) -> Expression:
    from flowctl.engine import cel  # noqa: PLC0415 - slow to import, and most engines never need it

    try:
        return cel.compiled(text)
    except ValueError as err:
        raise InvalidExpressionError(f"{text!r} is no valid expression: {err}") from err
