"""Databases to test with, and the short forms of what tests write into them."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowctl import MemoryStorage, PostgresStorage, SQLiteStorage
from flowctl.events import WorkflowEvent
from flowctl.snapshot import Snapshot, StepResult
from flowctl.storage.base import Claim, Commit, RecordWrite

DATABASES = ["memory", "file", "postgres"]


@dataclass
class Database:
    """One database; every storage made of it sees the same runs."""

    kind: str
    folder: Path
    dsn: str
    schema: str = field(default_factory=lambda: f"test_{uuid.uuid4().hex}")
    opened: list[Any] = field(default_factory=list)

    @property
    def source(self) -> str:
        """An expression that makes a storage on this database, for another process."""
        if self.kind == "postgres":
            return f"PostgresStorage({self.dsn!r}, schema={self.schema!r})"
        return f"SQLiteStorage({str(self.folder / 'runs.db')!r})"

    def storage(self) -> Any:
        """Another handle on the database."""
        match self.kind:
            case "memory":
                made: Any = self.opened[0] if self.opened else MemoryStorage()
            case "postgres":
                made = PostgresStorage(self.dsn, schema=self.schema)
            case _:
                made = SQLiteStorage(self.folder / "runs.db")
        self.opened.append(made)
        return made

    async def aclose(self) -> None:
        for storage in self.opened:
            await storage.close()


def snapshot(run_id: str = "r", status: Any = "running", **more: Any) -> Snapshot:
    return Snapshot(run_id, status=status, **more)


async def create(
    storage: Any,
    run_id: str = "r",
    *,
    workflow_id: str = "w",
    now: int = 1,
    is_shown: bool = True,
    **more: Any,
) -> Any:
    given = snapshot(run_id, "pending", **more)
    return await storage.create_run(
        workflow_id, run_id, resource_id=None, snapshot=given, now=now, is_shown=is_shown
    )


async def claim(storage: Any, run_id: str = "r", *, expected: Any = ("pending",), **more: Any) -> int | None:
    more.setdefault("snapshot", snapshot(run_id))
    return await storage.claim(Claim("w", run_id, frozenset(expected), 2, engine="local", **more))


async def commit(
    storage: Any,
    run_id: str = "r",
    *,
    leg: int = 1,
    status: Any = "running",
    now: int = 3,
    is_shown: bool = True,
    execution: str | None = None,
    **more: Any,
) -> bool:
    """`one="output"` commits a finished record of step `one`, `events=["a"]` events of that type and key."""
    records = {
        key: RecordWrite(StepResult("success", output=output), f"op.{key}", {"memo": output})
        for key, output in more.items()
        if key not in {"events", "snapshot"}
    }
    events = [(type, WorkflowEvent(type, {"n": 1}, run_id)) for type in more.get("events", ())]
    given = more.get("snapshot") or snapshot(run_id, status)
    return await storage.commit(Commit("w", run_id, leg, now, given, records, events, is_shown, execution))


async def begun(storage: Any, run_id: str = "r", **more: Any) -> None:
    """A run in its first leg."""
    await create(storage, run_id, **more)
    assert await claim(storage, run_id) == 1
