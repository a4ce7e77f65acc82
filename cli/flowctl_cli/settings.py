"""The keys of `[tool.flowctl]` in pyproject.toml: they mirror the options of the commands."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowctl.errors import ConfigurationError

KEYS: Mapping[str, type] = {
    "app": str,
    "debug": bool,
    "debug-port": int,
    "engine": str,
    "engine-image": str,
    "engine-port": int,
    "env-file": str,
    "host": str,
    "https": bool,
    "log-level": str,
    "open": bool,
    "port": int,
    "reload": bool,
}
KINDS = {str: "a string", int: "an integer", bool: "true or false"}


def checked(settings: Any, file: Path) -> Mapping[str, Any]:
    """The settings as they are; raises ConfigurationError for a key or a type that means nothing."""
    if not isinstance(settings, Mapping):
        raise ConfigurationError(f"tool.flowctl in {file} is no table: write [tool.flowctl] above its keys.")
    for key, value in settings.items():
        if key not in KEYS:
            near = difflib.get_close_matches(key.replace("_", "-"), KEYS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else f" The keys are: {', '.join(KEYS)}."
            raise ConfigurationError(f"[tool.flowctl] in {file} has no key {key!r}.{hint}")
        if type(value) is not KEYS[key]:
            raise ConfigurationError(f"[tool.flowctl] {key} = {value!r} in {file} is not {KINDS[KEYS[key]]}.")
    return settings
