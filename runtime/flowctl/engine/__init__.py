"""The embedded Inngest engine: the dev server's protocol on one SQLite file, for any Inngest SDK.

It knows nothing of flowctl's workflows: apps reach it by URL, as they reach Inngest. Its server is imported
when it is first used: apps share the engine's HTTP client alone, and start sooner without the rest.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowctl.engine.server import Engine, EngineConfig

__all__ = ["Engine", "EngineConfig"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(
            f"module {__name__!r} has no attribute {name!r}", name=name, obj=sys.modules[__name__]
        )
    return getattr(importlib.import_module("flowctl.engine.server"), name)
