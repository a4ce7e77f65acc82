"""The request context: values that travel with a run beside its data."""

from __future__ import annotations

import contextlib
from collections.abc import ItemsView, Iterator, KeysView, Mapping
from typing import Any

from flowctl.schema import NotJSONError, to_json


class RequestContext:
    """A mapping of JSON values, given at start and seen by every step; changes reach later steps.

    It lasts through suspensions, restarts and time travel; what `resume` is given comes over what there was.
    Values without a JSON form are there in the step that set them alone. `get` answers None for a key that is
    absent; `ctx["key"]` raises KeyError.
    """

    def __init__(self, values: Mapping[str, Any] | RequestContext | None = None) -> None:
        self._values: dict[str, Any] = dict(values.items()) if values else {}

    def get(self, key: str, default: Any = None) -> Any:
        """The value under a key, or None (or `default`)."""
        return self._values.get(key, default)

    def set(self, key: str, value: Any) -> None:
        """Put a value under a key."""
        self._values[key] = value

    def delete(self, key: str) -> None:
        """Remove a key; an absent one is no error."""
        self._values.pop(key, None)

    def keys(self) -> KeysView[str]:
        """The keys."""
        return self._values.keys()

    def items(self) -> ItemsView[str, Any]:
        """Pairs of key and value."""
        return self._values.items()

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._values[key] = value

    def __delitem__(self, key: str) -> None:
        del self._values[key]

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"RequestContext({self._values!r})"

    def to_json(self) -> dict[str, Any]:
        """The values as JSON data; a value without a JSON form is left out."""
        shown: dict[str, Any] = {}
        for key, value in self._values.items():
            with contextlib.suppress(NotJSONError):
                shown[key] = to_json(value)
        return shown
