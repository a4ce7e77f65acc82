"""What processes of the crash tests do: run one workflow that uses every control flow, and die when told.

A process appends to a log what it begins and what it has finished, so that the log tells, whoever died when,
whether anything finished ran again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowctl import (
    App,
    EngineError,
    PostgresStorage,
    SQLiteStorage,
    StepContext,
    create_step,
    create_workflow,
)
from flowctl.legs import LegLimits
from flowctl.testing import _served as served

RUN = "run"


@dataclass(frozen=True)
class Death:
    """Who is killed, and when: before or after the n-th write to storage."""

    write: int
    after: bool
    victim: int | None = None

    def __str__(self) -> str:
        return f"{'after' if self.after else 'before'} write {self.write}"


class Log:
    """A file that several processes append lines to; what was written outlives them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY)

    def add(self, *words: object) -> None:
        os.write(self._file, f"{' '.join(map(str, words))}\n".encode())

    def lines(self) -> list[list[str]]:
        return [line.split(" ", 2) for line in self.path.read_text().splitlines()]


class Mortal:
    """A storage whose process (or another) is killed at a write."""

    death: Death | None = None
    log: Log
    writes = 0

    async def create_run(self, *args: Any, **more: Any) -> Any:
        return await self._write(super().create_run(*args, **more))

    async def claim(self, claim: Any) -> Any:
        return await self._write(super().claim(claim))

    async def commit(self, commit: Any) -> Any:
        ops = [write.op for write in commit.records.values() if write and write.op]
        return await self._write(super().commit(commit), ops)

    async def delivered(self, dispatch: Any) -> Any:
        return await self._write(super().delivered(dispatch))

    async def take_up(self, taken: Any) -> Any:
        return await self._write(super().take_up(taken))

    async def take_turn(self, turn: Any, **more: Any) -> Any:
        return await self._write(super().take_turn(turn, **more))

    async def pass_turn(self, turn: Any, **more: Any) -> Any:
        return await self._write(super().pass_turn(turn, **more))

    async def _write(self, writing: Any, ops: list[str] = []) -> Any:  # noqa: B006 - never changed
        self.writes += 1
        number = self.writes
        self._reaper(number, after=False)
        answer = await writing
        for op in ops if answer else ():
            self.log.add("finished", op)
        self._reaper(number, after=True)
        return answer

    def _reaper(self, number: int, *, after: bool) -> None:
        death = self.death
        if death is not None and (death.write, death.after) == (number, after):
            self.log.add("killed", death)
            os.kill(death.victim or os.getpid(), signal.SIGKILL)


class MortalSQLite(Mortal, SQLiteStorage):
    """See Mortal."""


class MortalPostgres(Mortal, PostgresStorage):
    """See Mortal."""


def storage(where: str, log: Log, death: Death | None) -> Any:
    """A mortal storage: `where` is a file, or `schema@dsn`."""
    schema, at, dsn = where.partition("@")
    made = MortalPostgres(dsn, schema=schema, pool_size=3) if at else MortalSQLite(where)
    made.log, made.death = log, death
    return made


def workflow_of(log: Log, **nested: Any) -> Any:
    """Every control flow, short; each body tells that it begins. `nested` are options of nested workflows."""

    def named(id: str, work: Any, **options: Any) -> Any:
        async def execute(ctx: StepContext[Any, Any, Any]) -> Any:
            op = ctx.idempotency_key.partition(":")[2]
            log.add("begin", f"{op}.try.{ctx.retry_count}" if ctx.retry_count else op)
            await asyncio.sleep(0)
            ctx.set_state({op: True})
            return work(ctx)

        return create_step(id=id, execute=execute, **options)

    def flaky(ctx: StepContext[Any]) -> Any:
        if ctx.retry_count < 2:
            raise RuntimeError(f"try {ctx.retry_count}")
        return ctx.input_data

    inner = create_workflow(id="inner", **nested).then(named("i1", lambda c: c.input_data + 1)).sleep(3)
    inner.then(named("i2", lambda c: c.input_data + 1)).commit()
    each = create_workflow(id="each", **nested).then(named("e", lambda c: c.input_data * 2)).commit()
    one = create_workflow(id="one").then(each).then(named("o", lambda c: c.input_data + 1)).commit()
    again = create_workflow(id="again", **nested).then(named("n1", lambda c: c.input_data + 1))
    again.then(named("n2", lambda c: c.input_data * 2)).commit()
    return (
        create_workflow(id="crash", retry_config={"attempts": 0, "delay": 5})
        .then(named("a", lambda c: c.input_data + 1))
        .parallel([named("p1", lambda c: c.input_data + 1), named("p2", lambda c: c.input_data + 2)])
        .map({"x": {"step": "p1"}, "y": {"step": "p2"}})
        .branch([
            (lambda c: True, named("b1", lambda c: [c.input_data["x"], 7, 9])),
            (lambda c: False, named("b2", lambda c: [])),
        ])
        .map(lambda c: c.input_data["b1"])
        .foreach(one, concurrency=2)
        .foreach(named("f", lambda c: c.input_data + 1), concurrency=2)
        .map(lambda c: sum(c.input_data))
        .dountil(named("loop", lambda c: c.input_data + 1), lambda c: c.iteration_count >= 3)
        .sleep(3)
        .dountil(again, lambda c: c.iteration_count >= 2)
        .then(inner)
        .then(named("flaky", flaky, retries=3))
        .then(named("z", lambda c: c.input_data))
        .commit()
    )  # fmt: skip


async def local_life(where: str, log: Log, death: Death | None, *, first: bool) -> None:
    """A process of the local engine: begins the run, or takes over what another one left."""
    workflow = workflow_of(log)
    app = App(workflows=[workflow], storage=storage(where, log, death), engine="local")
    await app.start()
    if first:
        await (await workflow.create_run(run_id=RUN)).start(1)
    await _until_the_end(workflow, log)
    await app.stop()
    log.add("writes", app.storage.writes)


async def inngest_life(
    where: str, log: Log, death: Death | None, *, first: bool, engine: str, port: int, leg: int, apart: bool
) -> None:
    """A worker that an Inngest engine calls at a port; with `apart` nested workflows are functions too."""
    import httpx
    import inngest

    from flowctl import serve

    nested: Any = {"concurrency": [inngest.Concurrency(limit=5)]} if apart else {}
    workflow = workflow_of(log, **nested)
    client = inngest.Inngest(
        app_id="crash", is_production=False, api_base_url=engine, event_api_base_url=engine
    )
    app = App(
        workflows=[workflow],
        storage=storage(where, log, death),
        inngest=client,
        leg_limits=LegLimits(steps=leg),
    )
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    async with served(serve(app), listener) as url, httpx.AsyncClient(timeout=10) as http:
        await http.put(f"{url}/api/inngest", headers={"x-inngest-server-kind": "dev"})
        await app.start()
        if first:
            with contextlib.suppress(EngineError):  # what could not be sent is kept
                await (await workflow.create_run(run_id=RUN)).start_async(1)
            await app.inngest_runner.deliver_stored()
        await _until_the_end(workflow, log)
    await app.stop()
    log.add("writes", app.storage.writes)


async def _until_the_end(workflow: Any, log: Log) -> None:
    while True:
        run = await workflow.get_workflow_run_by_id(RUN)
        status = "missing" if run is None else run.status
        if status in {"missing", "pending", "success", "failed", "canceled"}:
            break
        await asyncio.sleep(0.005)
    shown = {"result": run.snapshot.result, "state": run.snapshot.state} if run else None
    log.add("ended", status, json.dumps(shown, sort_keys=True))
