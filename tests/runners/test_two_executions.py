"""An engine may call an app for a run whose earlier request is still alive: what the two do never mixes."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncGenerator
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import inngest
import orjson
import pytest

from flowctl import SQLiteStorage, StepContext, create_step, create_workflow
from flowctl.legs import LegLimits
from flowctl.runners import checkpoints, engine_api
from flowctl.storage.base import Claim
from tests.runners.front import Answer, Served, on_engine

LONG = 60.0


@pytest.fixture(autouse=True)
def _each_request_is_crowded_and_reports_late(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DELAY_SECONDS", "LONG_SECONDS", "SILENCE_SECONDS"):
        monkeypatch.setattr(checkpoints, name, LONG)
    monkeypatch.setattr(engine_api, "CROWD", 1)


class Gated:
    """Steps that end when they may; each adds to its input which of its executions it is."""

    def __init__(self) -> None:
        self.begun: dict[Any, asyncio.Event] = defaultdict(asyncio.Event)
        self.may_end: dict[Any, asyncio.Event] = defaultdict(asyncio.Event)
        self._count: dict[str, int] = defaultdict(int)

    def step(self, id: str) -> Any:
        async def execute(ctx: StepContext[Any]) -> Any:
            self._count[id] += 1
            mine = id, self._count[id]
            self.begun[mine].set()
            await self.may_end[mine].wait()
            ctx.set_state({id: mine[1]})
            return [*(ctx.input_data or []), mine[1]]

        return create_step(id=id, execute=execute)


@contextlib.asynccontextmanager
async def older_execution(
    served: Served, function: str, begun: asyncio.Event
) -> AsyncGenerator[asyncio.Task[httpx.Response]]:
    """Execute what the engine asks of a function once more, before the engine's own request is let in."""
    arrived, may_enter = asyncio.Event(), asyncio.Event()

    async def around(query: str, answer: Answer) -> None:
        if f"fnId=test-{function}&" in f"{query}&" and "older" not in query:
            arrived.set()
            await may_enter.wait()
        await answer()

    served.around = around
    await arrived.wait()
    url = f"{served.url}?{served.requests[-1]}&older"
    async with asyncio.TaskGroup() as tasks:
        older = tasks.create_task(served.front.http.post(url, content=orjson.dumps(served.bodies[-1])))
        await begun.wait()
        may_enter.set()
        yield older


async def goes_on(gated: Gated, older: asyncio.Task[httpx.Response], second: str) -> bool:
    """Whether the older execution begins its second step, rather than end."""
    begun = asyncio.ensure_future(gated.begun[second, 2].wait())
    await asyncio.wait([begun, older], return_when="FIRST_COMPLETED")
    return not begun.cancel()


def is_given_up(answer: httpx.Response) -> bool:
    return answer.status_code == 500 and b"Another request executes" in answer.content


def whole(*steps: Any) -> Any:
    return chain("w", *steps)


def nested(*steps: Any) -> Any:
    inner = chain("inner", *steps, concurrency=[inngest.Concurrency(limit=5)])
    return create_workflow(id="w").then(inner).commit()


def chain(id: str, *steps: Any, **options: Any) -> Any:
    workflow = create_workflow(id=id, **options)
    for each in steps:
        workflow = workflow.then(each)
    return workflow.commit()


@pytest.mark.parametrize(("made", "function"), [(whole, "workflow.w"), (nested, "workflow.inner")])
async def test_of_two_executions_of_a_run_or_a_part_the_older_one_leaves_nothing(
    tmp_path: Path, made: Any, function: str
):
    gated = Gated()
    workflow = made(gated.step("a"), gated.step("b"))
    async with on_engine(workflows=[workflow], storage=SQLiteStorage(tmp_path / "runs.db")) as served:
        ending = asyncio.create_task(served.start("w"))
        async with asyncio.timeout(20), older_execution(served, function, gated.begun["a", 1]) as older:
            await gated.begun["a", 2].wait()
            gated.may_end["a", 2].set()
            await gated.begun["b", 1].wait()
            gated.may_end["a", 1].set()
            assert not await goes_on(gated, older, "b")
            gated.may_end["b", 1].set()
            ended = await ending
        assert is_given_up(older.result())
        assert (ended.result, ended.state) == ([2, 1], {"a": 2, "b": 1})


class HeldLegs(SQLiteStorage):
    """Begins a leg that goes on from another one when it may."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.held = [asyncio.Event(), asyncio.Event()]
        self.may_begin = [asyncio.Event(), asyncio.Event()]
        self._count = count()

    async def claim(self, claim: Claim) -> int | None:
        number = next(self._count) if claim.leg is not None else len(self.held)
        if number < len(self.held):
            self.held[number].set()
            await self.may_begin[number].wait()
        return await super().claim(claim)


async def test_an_older_execution_does_not_go_on_in_another_leg(tmp_path: Path):
    async def add(ctx: StepContext[Any]) -> Any:
        return ctx.input_data + 1

    workflow = chain("w", *(create_step(id=f"s{n}", execute=add) for n in range(5)))
    storage = HeldLegs(tmp_path / "runs.db")
    async with on_engine(workflows=[workflow], storage=storage, leg_limits=LegLimits(steps=3)) as served:
        ending = asyncio.create_task(served.start("w", 0))
        async with asyncio.timeout(20), older_execution(served, "workflow.w", storage.held[0]) as older:
            await storage.held[1].wait()
            storage.may_begin[0].set()
            await asyncio.wait([older])
            storage.may_begin[1].set()
            assert (await ending).result == 5
        assert is_given_up(older.result())
