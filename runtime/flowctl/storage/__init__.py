"""Where runs are kept."""

from flowctl.storage.base import Storage
from flowctl.storage.memory import MemoryStorage
from flowctl.storage.postgres import PostgresStorage
from flowctl.storage.sqlite import SQLiteStorage

__all__ = ["MemoryStorage", "PostgresStorage", "SQLiteStorage", "Storage"]
