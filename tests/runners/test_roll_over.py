"""A long run on Inngest goes on leg after leg, and nobody who waits for it or looks at it can tell."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import inngest
import pytest

from flowctl import MemoryStorage, StepContext, StorageError, create_step, create_workflow
from flowctl.legs import LegLimits
from flowctl.storage.base import Claim
from tests.runners.front import Answer, Served, on_engine

SHORT = LegLimits(steps=6)
ran: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


def step(id: str, execute: Any = None, **options: Any) -> Any:
    async def body(ctx: StepContext[Any]) -> Any:
        ran[f"{id}:{ctx.input_data}"] += 1
        return await execute(ctx) if execute else ctx.input_data

    return create_step(id=id, execute=body, **options)


async def plus_one(ctx: StepContext[Any]) -> Any:
    return ctx.input_data + 1


def loop(id: str, until: int, **options: Any) -> Any:
    workflow = create_workflow(id=id, **options)
    return workflow.dountil(step("increment", plus_one), lambda ctx: ctx.input_data >= until).commit()


def legs(served: Served) -> int:
    """How many legs came after first ones."""
    return sum(event["name"].endswith(".continue") for event in served.front.events)


class DiesAtTheEndOfALeg(MemoryStorage):
    """Fails once, as if its process had died, when a leg is to be followed by another."""

    deaths = 0

    async def claim(self, claim: Claim) -> int | None:
        if claim.leg and not self.deaths:
            self.deaths += 1
            raise StorageError("the process dies")
        return await super().claim(claim)


async def events_of(served: Served, workflow_id: str, run_id: str) -> list[str]:
    stored = await served.app.storage.read_events(workflow_id, run_id)
    return [event.type for _, event in stored]


async def test_a_loop_that_is_longer_than_a_leg_ends_and_its_events_are_those_of_one_leg():
    async with on_engine(workflows=[loop("w", 30)], leg_limits=SHORT) as served:
        result = await served.start("w", 0)
        assert (result.result, sum(ran.values()), max(ran.values())) == (30, 30, 1)
        assert legs(served) >= 4
        types = Counter(await events_of(served, "w", result.run_id))
        assert types["workflow-start"] == types["workflow-finish"] == 1
        assert types["workflow-step-start"] == types["workflow-step-result"] == 30


async def test_a_foreach_goes_on_with_the_items_that_are_left():
    async def double(ctx: StepContext[Any]) -> int:
        return ctx.input_data * 2

    workflow = create_workflow(id="w").foreach(step("double", double), concurrency=3).then(step("end"))
    async with on_engine(workflows=[workflow.commit()], leg_limits=SHORT) as served:
        result = await served.start("w", list(range(25)))
        assert result.result == [n * 2 for n in range(25)]
        assert {count for name, count in ran.items() if name.startswith("double")} == {1}
        types = Counter(await events_of(served, "w", result.run_id))
        assert (types["workflow-step-progress"], types["workflow-step-start"]) == (25, 2)
        assert legs(served) >= 3


async def test_state_nested_workflows_parallel_arms_and_retries_go_on_where_they_were():
    async def note(ctx: StepContext[Any]) -> Any:
        ctx.set_state({f"seen-{ctx.input_data}": True})
        if ctx.input_data == 4 and ctx.retry_count < 2:
            raise ValueError("not yet")
        return ctx.input_data + 1

    inner = create_workflow(id="inner").then(step("note", note, retries=2)).then(step("pass")).commit()
    looped = create_workflow(id="looped").dountil(inner, lambda ctx: ctx.input_data >= 8).commit()
    workflow = create_workflow(id="w").parallel([looped, loop("other", 12)]).then(step("end")).commit()
    async with on_engine(workflows=[workflow], leg_limits=SHORT) as served:
        result = await served.start("w", 0)
        assert result.result == {"looped": 8, "other": 12}
        assert result.state == {f"seen-{n}": True for n in range(8)}
        assert (ran["note:4"], ran["note:5"], max(ran[f"increment:{n}"] for n in range(12))) == (3, 1, 1)
        types = Counter(await events_of(served, "w", result.run_id))
        assert types["workflow-start"] == types["workflow-finish"] == 1
        assert legs(served) >= 4


async def test_a_sleep_that_a_leg_leaves_keeps_its_time():
    nap = create_workflow(id="nap").then(step("before")).sleep(300).then(step("after")).commit()
    workflow = create_workflow(id="w").parallel([nap, loop("busy", 15)]).commit()
    async with on_engine(workflows=[workflow], leg_limits=SHORT) as served:
        result = await served.start("w", 0)
        assert result.status == "success"
        assert max(ran.values()) == 1
        types = Counter(await events_of(served, "w", result.run_id))
        assert types["workflow-step-waiting"] == 1


async def test_a_list_whose_items_sleep_goes_on_leg_after_leg():
    item = create_workflow(id="item").then(step("before")).sleep(2).then(step("after")).commit()
    workflow = create_workflow(id="w").foreach(item, concurrency=3).commit()
    async with on_engine(workflows=[workflow], leg_limits=LegLimits(steps=20)) as served:
        assert (await served.start("w", list(range(24)))).result == list(range(24))
        assert (set(ran.values()), len(ran)) == ({1}, 48)
        assert legs(served) >= 24 * 4 // 30
        reported = Counter(post["run_id"] for post in served.front.posts for _ in post["steps"])
        assert max(reported.values()) < 40


async def test_what_was_resumed_and_is_suspended_again_waits_for_the_next_resume():
    async def ask(ctx: StepContext[Any]) -> Any:
        if ctx.resume_data == "enough":
            return "asked"
        return await ctx.suspend({"have": ctx.resume_data})

    workflow = create_workflow(id="w").parallel([step("ask", ask), loop("busy", 14)]).commit()
    long = create_workflow(id="l").then(workflow).commit()
    async with on_engine(workflows=[long], leg_limits=SHORT) as served:
        run = await served.app.get_workflow("l").create_run()
        assert (await run.start(input_data=0)).status == "suspended"
        again = await run.resume(resume_data="more")
        assert (again.status, again.suspend_payload["w"]["have"]) == ("suspended", "more")
        assert (await run.resume(resume_data="enough")).result == {"ask": "asked", "busy": 14}
        assert max(ran[f"increment:{n}"] for n in range(14)) == 1


async def test_later_legs_of_a_rate_limited_workflow_are_neither_dropped_nor_delayed():
    from datetime import timedelta

    async def ask(ctx: StepContext[Any]) -> Any:
        return ctx.resume_data if ctx.resume_data is not None else await ctx.suspend()

    limit = inngest.RateLimit(limit=1, period=timedelta(minutes=1), key="event.data.resourceId")
    concurrency = [inngest.Concurrency(limit=2, key="event.data.resourceId")]
    workflow = create_workflow(id="w", rate_limit=limit, concurrency=concurrency).then(step("ask", ask))
    workflow = workflow.dountil(step("increment", plus_one), lambda ctx: ctx.input_data >= 20).commit()
    async with on_engine(workflows=[workflow], leg_limits=SHORT) as served, asyncio.timeout(30):
        run = await served.app.get_workflow("w").create_run(resource_id="r")
        assert (await run.start(input_data=0)).status == "suspended"
        assert (await run.resume(resume_data=0)).result == 20
        assert legs(served) >= 4
        by_id = {function["id"]: function for function in served.front.registered}
        first, later = by_id["test-workflow.w"], by_id["test-workflow.w.continue"]
        assert first["rateLimit"]["limit"] == 1
        assert later.get("rateLimit") is None
        assert later["concurrency"] == first["concurrency"]


async def test_a_leg_whose_event_could_not_be_sent_is_sent_by_the_next_try_of_the_request():
    async with on_engine(workflows=[loop("w", 10)], leg_limits=SHORT) as served:
        refusals = iter([None, 500, 500])
        served.front.refuse = lambda path: next(refusals, None) if path.startswith("/e/") else None
        assert (await served.start("w", 0)).result == 10
        assert max(ran.values()) == 1


async def test_what_a_step_gives_may_be_larger_than_a_leg():
    async def much(ctx: StepContext[Any]) -> Any:
        return "x" * 3000

    limits = LegLimits(size=2048)
    workflow = create_workflow(id="w").then(step("a", much)).then(step("b", much)).then(step("c")).commit()
    async with on_engine(workflows=[workflow], leg_limits=limits) as served:
        assert (await served.start("w", "in")).result == "x" * 3000
        assert "x" * 3000 not in str(served.front.posts) + str(served.front.events)
        assert max(ran.values()) == 1


async def test_an_input_that_is_too_large_for_an_event_is_left_in_storage():
    async with on_engine(
        workflows=[create_workflow(id="w").then(step("a")).sleep(1).then(step("b")).commit()]
    ) as served:
        big = "x" * 200_000
        assert (await served.start("w", big)).result == big
        assert max(len(str(event)) for event in served.front.events) < 10_000


def refuses_checkpoints(served: Served) -> None:
    served.front.refuse = lambda path: 404 if "checkpoint" in path else None


def longest(served: Served) -> int:
    """The most steps that one function run has had."""
    query = "SELECT max(steps) FROM (SELECT count(*) AS steps FROM steps GROUP BY run_id)"
    return served.engine._store.db.execute(query).fetchone()[0]


async def test_without_checkpoints_a_long_list_goes_on_leg_after_leg_and_runs_each_step_once():
    chain = create_workflow(id="chain").then(step("a", plus_one)).then(step("b", plus_one)).commit()
    workflow = create_workflow(id="w").foreach(chain, concurrency=4).then(step("end")).commit()
    async with on_engine(workflows=[workflow], leg_limits=LegLimits(steps=15)) as served:
        refuses_checkpoints(served)
        result = await served.start("w", list(range(20)))
        assert (result.result, max(ran.values())) == ([n + 2 for n in range(20)], 1)
        assert (legs(served) >= 4, longest(served) <= 15 + 2 * 4) == (True, True)


async def test_without_checkpoints_branches_that_sleep_do_not_hold_the_next_leg_up():
    async def note(ctx: StepContext[Any]) -> Any:
        ctx.set_state({ctx.workflow_id: ctx.input_data})
        return ctx.input_data

    naps = create_workflow(id="naps").then(step("before", note)).sleep(1500).then(step("after")).commit()
    counts = create_workflow(id="counts").then(loop("count", 20)).then(step("counted", note)).commit()
    workflow = create_workflow(id="w").parallel([naps, counts]).commit()
    async with on_engine(workflows=[workflow], leg_limits=SHORT) as served:
        refuses_checkpoints(served)
        result = await served.start("w", 0)
        assert (result.result, max(ran.values())) == ({"naps": 0, "counts": 20}, 1)
        assert (result.state, legs(served) >= 3) == ({"naps": 0, "counts": 20}, True)


async def test_without_checkpoints_a_list_ends_with_its_first_failure_in_a_later_leg_too():
    async def fail_at_nine(ctx: StepContext[Any]) -> Any:
        if ctx.input_data == 9:
            raise ValueError("nine")

    workflow = create_workflow(id="w").foreach(step("a", fail_at_nine), concurrency=3).commit()
    async with on_engine(workflows=[workflow], leg_limits=SHORT) as served:
        refuses_checkpoints(served)
        result = await served.start("w", list(range(30)))
        assert (result.error.message, max(ran.values()), len(ran) < 15) == ("nine", 1, True)


async def test_what_a_step_changed_of_the_state_is_kept_when_its_request_dies_at_the_legs_end():
    async def write(ctx: StepContext[Any]) -> str:
        ctx.set_state({"written": True})
        return "x" * 9_000

    async def read(ctx: StepContext[Any]) -> Any:
        return dict(ctx.state)

    workflow = create_workflow(id="w").then(step("write", write)).then(step("read", read)).commit()
    storage = DiesAtTheEndOfALeg()
    async with on_engine(workflows=[workflow], storage=storage, leg_limits=LegLimits(size=8_000)) as served:
        result = await served.start("w")
        assert (result.result, storage.deaths, legs(served)) == ({"written": True}, 1, 1)
        assert set(ran.values()) == {1}


async def test_a_leg_goes_on_over_what_an_arm_had_ended_when_its_request_died():
    """What is in storage, but was not reported, belongs to the leg even when other arms have spent it."""
    requests: list[asyncio.Future[None]] = []

    async def write(ctx: StepContext[Any]) -> None:
        async with asyncio.timeout(20):
            while len(served.front.posted) < SHORT.steps:  # noqa: ASYNC110 - the other arm spends the leg
                await asyncio.sleep(0.005)
        ctx.set_state({"written": True})

    async def read(ctx: StepContext[Any]) -> Any:
        return dict(ctx.state)

    def die_with_the_report(path: str) -> int | None:
        if len(requests) > 1 or not any("write" in name for name in served.front.posted):
            return None
        requests[0].cancel()
        return 500

    async def around(query: str, answer: Answer) -> None:
        requests.append(asyncio.ensure_future(answer()))
        await asyncio.wait({requests[-1]})
        requests[-1].result()

    arms = [loop("busy", 20), create_workflow(id="arm").then(step("write", write)).commit()]
    workflow = create_workflow(id="w").parallel(arms).then(step("read", read)).commit()
    async with on_engine(workflows=[workflow], leg_limits=SHORT) as served:
        served.front.refuse, served.around = die_with_the_report, around
        assert (await served.start("w", 0)).result == {"written": True}
        assert requests[0].cancelled()
        assert ran["write:0"] == 1
