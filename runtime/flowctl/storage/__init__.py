"""Where runs are kept: the protocol and its implementations."""

from flowctl.storage.base import Storage
from flowctl.storage.sqlite import SQLiteStorage

__all__ = ["SQLiteStorage", "Storage"]
