"""The embedded Inngest engine: the dev server's protocol on one SQLite file, for any Inngest SDK.

It knows nothing of flowctl's workflows: apps reach it by URL, as they reach Inngest.
"""

from flowctl.engine.server import Engine, EngineConfig

__all__ = ["Engine", "EngineConfig"]
