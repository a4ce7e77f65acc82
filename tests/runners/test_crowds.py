"""When many requests are answered at once, a run's steps go on while they are reported, and go together."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from flowctl import StepContext, create_step, create_workflow
from flowctl.runners import checkpoints, engine_api
from flowctl.runners.checkpoints import MOST_LATE_BYTES, hashed
from tests.runners.front import Served, on_engine

LONG = 60.0


@pytest.fixture(autouse=True)
def _each_request_is_crowded_and_reports_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_api, "CROWD", 1)
    monkeypatch.setattr(checkpoints, "DELAY_SECONDS", LONG)
    monkeypatch.setattr(checkpoints, "LONG_SECONDS", LONG)
    monkeypatch.setattr(checkpoints, "SILENCE_SECONDS", LONG)


def chain(ran: Counter[int], length: int) -> Any:
    async def increment(ctx: StepContext[int]) -> int:
        ran[ctx.input_data] += 1
        return ctx.input_data + 1

    workflow = create_workflow(id="chain")
    for n in range(length):
        workflow = workflow.then(create_step(id=f"increment-{n}", execute=increment))
    return workflow.commit()


def increments(served: Served) -> list[str]:
    return [name for name in served.front.posted if "increment" in name]


async def until(holds: Callable[[], Any]) -> None:
    """A run has ended before the engine knows: it is told at the end of the request."""
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - the front's lists are filled by others
            await asyncio.sleep(0.005)


def refuse_reports(served: Served, *statuses: int | None) -> None:
    answers = iter(statuses)
    served.front.refuse = lambda path: next(answers, None) if path.startswith("/v1/checkpoint") else None


async def test_the_steps_of_a_run_are_reported_together_by_its_end():
    async with on_engine(workflows=[chain(Counter(), 5)]) as served:
        assert (await served.start("chain", 5)).result == 10
        await until(lambda: served.front.posts)
        assert increments(served) == [f"{n}.increment-{n}" for n in range(5)]
        assert (len(served.front.posts), len(served.requests)) == (1, 1)


async def test_no_more_than_fifty_steps_wait_for_a_report():
    async with on_engine(workflows=[chain(Counter(), 120)]) as served:
        assert (await served.start("chain", 0)).result == 120
        await until(lambda: len(served.front.posts) == 3)
        assert len(increments(served)) == len(set(increments(served))) == 120
        assert [len(post["steps"]) for post in served.front.posts[:2]] == [50, 50]


def loop(look: Callable[[StepContext[Any]], Any], times: int) -> Any:
    step = create_step(id="look", execute=look, retries=1)
    return create_workflow(id="w").dountil(step, lambda c: c.iteration_count >= times).commit()


async def test_the_iterations_of_a_loop_are_reported_together_too():
    async def look(ctx: StepContext[int]) -> int:
        return ctx.input_data + 1

    async with on_engine(workflows=[loop(look, 5)]) as served:
        assert (await served.start("w", 1)).result == 6
        await until(lambda: served.front.posts)
        iterations = [name for name in served.front.posted if "iter" in name]
        assert (len(served.front.posts), len(iterations)) == (1, 5)


async def begun(served: Served, run_id: str) -> None:
    """Wait until storage knows that an iteration has begun: its record is written for that."""
    async with asyncio.timeout(20):
        while True:
            stored = await served.app.storage.get_run("w", run_id)
            if stored is not None and stored.snapshot.records["look"].status == "running":
                return


def die() -> None:
    """End this request as the death of its process would: nobody hears of it."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


@pytest.mark.parametrize("failing", [0, 3], ids=["that succeed", "with a try that fails"])
async def test_iterations_that_storage_alone_knows_run_once_and_keep_what_they_changed(failing: int):
    ran: list[tuple[int, int]] = []

    async def look(ctx: StepContext[int]) -> int:
        if ctx.iteration_count == 4 and len(served.requests) == 1:
            await begun(served, ctx.run_id)
            die()
            await asyncio.sleep(LONG)
        ran.append((ctx.iteration_count, ctx.retry_count))
        if ran[-1] == (failing, 0):
            raise RuntimeError("once")
        ctx.set_state({f"at {ctx.iteration_count}": ctx.input_data})
        return ctx.input_data + 1

    async with on_engine(workflows=[loop(look, 4)]) as served:
        done = await served.start("w", 1)
        assert (done.result, done.state) == (5, {"at 1": 1, "at 2": 2, "at 3": 3, "at 4": 4})
        assert ran == [(1, 0), (2, 0), (3, 0), *([(3, 1)] if failing else []), (4, 0)]
        assert len(served.requests) == 2


async def test_an_iteration_waits_for_the_reports_of_large_ones_which_its_record_would_carry():
    seen: list[int] = []

    async def look(ctx: StepContext[Any]) -> str:
        seen.append(len(served.front.posts))
        return "x" * MOST_LATE_BYTES

    async with on_engine(workflows=[loop(look, 3)]) as served:
        await served.start("w", 1)
        assert seen == [0, 1, 2]


async def test_arms_wait_for_their_reports_since_a_repeated_request_may_leave_them_earlier():
    known: list[bool] = []

    def arm(id: str) -> Any:
        async def first(ctx: StepContext[Any]) -> None:
            pass

        async def second(ctx: StepContext[Any]) -> None:
            known.append(any(name.endswith(f"{id}-first") for name in served.front.posted))

        steps = [create_step(id=f"{id}-{work.__name__}", execute=work) for work in (first, second)]
        return create_workflow(id=id).then(steps[0]).then(steps[1]).commit()

    async with on_engine(
        workflows=[create_workflow(id="w").parallel([arm("a"), arm("b")]).commit()]
    ) as served:
        assert (await served.start("w")).status == "success"
        assert known == [True, True]


@pytest.mark.parametrize("limit", ["LONG_SECONDS", "SILENCE_SECONDS"])
async def test_after_a_long_step_or_silence_the_report_is_waited_for(monkeypatch: Any, limit: str):
    monkeypatch.setattr(checkpoints, limit, 0)
    seen: list[int] = []

    async def look(ctx: StepContext[Any]) -> None:
        seen.append(len(served.front.posts))

    workflow = create_workflow(id="w")
    for n in range(3):
        workflow = workflow.then(create_step(id=f"look-{n}", execute=look))
    async with on_engine(workflows=[workflow.commit()]) as served:
        await served.start("w")
        assert seen == [0, 1, 2]


async def test_a_request_that_was_given_up_stops_before_its_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checkpoints, "DELAY_SECONDS", 0)
    ran_in: list[int] = []

    async def look(ctx: StepContext[Any]) -> None:
        ran_in.append(len(served.requests))
        if len(served.requests) == 1:
            await asyncio.sleep(0.01)  # work, while the report is refused

    workflow = create_workflow(id="w")
    for n in range(300):
        workflow = workflow.then(create_step(id=f"look-{n}", execute=look))
    async with on_engine(workflows=[workflow.commit()]) as served:
        refuse_reports(served, 409)
        assert (await served.start("w")).status == "success"
        assert (ran_in[-1], len(ran_in)) == (2, 300)


async def test_what_ended_before_a_sleep_is_reported_before_the_engine_is_asked_for_it():
    def step(id: str) -> Any:
        async def execute(ctx: StepContext[Any]) -> str:
            return id

        return create_step(id=id, execute=execute)

    workflow = create_workflow(id="w").then(step("a")).then(step("b")).sleep(20).then(step("c")).commit()
    async with on_engine(workflows=[workflow]) as served:
        assert (await served.start("w")).result == "c"
        assert {hashed("0.a"), hashed("1.b")} <= served.bodies[1]["steps"].keys()


async def test_steps_whose_report_is_not_taken_are_in_the_reply_and_run_once():
    ran: Counter[int] = Counter()
    async with on_engine(workflows=[chain(ran, 5)]) as served:
        refuse_reports(served, *[500] * 6)
        assert (await served.start("chain", 5)).result == 10
        await until(lambda: len(served.requests) == 2)
        assert {hashed(f"{n}.increment-{n}") for n in range(5)} <= served.bodies[1]["steps"].keys()
        assert set(ran.values()) == {1}


async def test_a_request_that_was_given_up_ends_and_the_next_one_runs_nothing_again():
    ran: Counter[int] = Counter()
    async with on_engine(workflows=[chain(ran, 5)]) as served:
        refuse_reports(served, 409)
        assert (await served.start("chain", 5)).result == 10
        await until(lambda: len(served.requests) == 2)
        assert set(ran.values()) == {1}


async def test_nothing_begins_while_the_engine_does_not_take_what_ended_before(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(checkpoints, "DELAY_SECONDS", 0)
    is_tried_again = asyncio.Event()
    tries: list[int] = []

    async def first(ctx: StepContext[Any]) -> None:
        pass

    async def second(ctx: StepContext[Any]) -> None:
        async with asyncio.timeout(20):
            await is_tried_again.wait()

    async def third(ctx: StepContext[Any]) -> None:
        tries.append(len(served.front.posts))

    steps = [create_step(id=work.__name__, execute=work) for work in (first, second, third)]
    workflow = create_workflow(id="w").then(steps[0]).then(steps[1]).then(steps[2]).commit()
    async with on_engine(workflows=[workflow]) as served:

        def refuse(path: str) -> int | None:
            if not path.startswith("/v1/checkpoint"):
                return None
            if len(served.front.posts) == 2:
                is_tried_again.set()
            return 500 if len(served.front.posts) <= 3 else None

        served.front.refuse = refuse
        assert (await served.start("w")).status == "success"
        assert tries[0] >= 3


async def test_a_run_that_fails_has_reported_its_steps():
    async def fail(ctx: StepContext[Any]) -> None:
        raise ValueError("no")

    workflow = create_workflow(id="w").then(create_step(id="fail", execute=fail)).commit()
    async with on_engine(workflows=[workflow]) as served:
        assert (await served.start("w")).status == "failed"
        await until(lambda: "fail" in " ".join(served.front.posted))


async def test_steps_that_never_wait_let_other_runs_go_on():
    """A run whose steps only compute would hold all others, were it for its steps alone."""
    turns: list[int] = []
    both = asyncio.Barrier(2)

    async def meet(ctx: StepContext[list[int]]) -> list[int]:
        async with asyncio.timeout(20):
            await both.wait()
        return ctx.input_data

    async def compute(ctx: StepContext[list[int]]) -> list[int]:
        run, count = ctx.input_data
        turns.append(run)
        sum(range(50_000))
        return [run, count + 1]

    workflow = create_workflow(id="w").then(create_step(id="meet", execute=meet))
    for n in range(40):
        workflow = workflow.then(create_step(id=f"compute-{n}", execute=compute))
    async with on_engine(workflows=[workflow.commit()]) as served:
        await asyncio.gather(*(served.start("w", [number, 0]) for number in (1, 2)))
        assert sum(a != b for a, b in pairwise(turns)) > 2
