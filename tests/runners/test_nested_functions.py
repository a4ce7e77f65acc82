"""A nested workflow with flow control of its own is a function of its own; the run shows no trace of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import inngest
import pytest

from flowctl import StepContext, create_step, create_workflow
from flowctl.legs import LegLimits
from tests.runners.front import Served, on_engine

ONE = [inngest.Concurrency(limit=1)]
ran: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def _nothing_ran() -> None:
    ran.clear()


def step(id: str, execute: Any = None, **options: Any) -> Any:
    async def body(ctx: StepContext[Any]) -> Any:
        ran[id] += 1
        return await execute(ctx) if execute else ctx.input_data

    return create_step(id=id, execute=body, **options)


async def plus_one(ctx: StepContext[Any]) -> Any:
    return ctx.input_data + 1


def invoked(served: Served) -> int:
    """How many runs of `inner` the engine has seen, beside those of its failure handler."""
    rows = served.engine._store.db.execute("SELECT slug FROM runs WHERE slug NOT LIKE '%-failure'").fetchall()
    return sum(slug.startswith("test-workflow.inner") for (slug,) in rows)


def statuses(served: Served) -> list[str]:
    """How the engine's runs stand."""
    return [status for (status,) in served.engine._store.db.execute("SELECT status FROM runs").fetchall()]


def inner(*steps: Any, **options: Any) -> Any:
    workflow = create_workflow(id="inner", **({"concurrency": ONE} | options))
    for each in steps:
        workflow = workflow.then(each)
    return workflow.commit()


async def test_a_limit_of_one_holds_across_two_parents():
    at_work, most = 0, 0

    async def work(ctx: StepContext[Any]) -> Any:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        await asyncio.sleep(0.05)
        at_work -= 1
        return ctx.input_data

    nested = inner(step("a", work), step("b", work))
    parents = [create_workflow(id=id).then(nested).commit() for id in ("one", "two")]
    async with on_engine(workflows=parents) as served:
        results = await asyncio.gather(*(served.start(id, n) for id in ("one", "two") for n in (1, 2)))
        assert [result.result for result in results] == [1, 2, 1, 2]
        assert (most, ran["a"], ran["b"], invoked(served)) == (1, 4, 4, 4)


async def story(served: Served, run_id: str) -> tuple[list[Any], dict[str, Any]]:
    """A run's events and records, without what differs from run to run."""
    fickle = {"startedAt", "endedAt", "suspendedAt", "resumedAt", "stepCallId", "stack", "runId"}

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items() if k not in fickle}
        return [plain(v) for v in value] if isinstance(value, list) else value

    stored = await served.app.storage.get_run("w", run_id)
    assert stored is not None
    events = await served.app.storage.read_events("w", run_id)
    snapshot = stored.snapshot
    records = {key: plain(record.to_json()) for key, record in snapshot.records.items()}
    return [plain(event.to_json()) for _, event in events], {
        "records": records, "state": snapshot.state, "context": snapshot.request_context,
        "status": snapshot.status, "result": snapshot.result,
    }  # fmt: skip


async def note(ctx: StepContext[Any]) -> Any:
    ctx.set_state({"seen": [*(ctx.state or {}).get("seen", []), ctx.input_data]})
    ctx.request_context.set("by", "inner")
    ctx.request_context.delete("old")
    ctx.writer.write({"n": ctx.input_data})
    return ctx.input_data + 1


class BrokenError(Exception):
    def __init__(self) -> None:
        super().__init__("broken")
        self.hint = "mend it"


async def broken(_: StepContext[Any]) -> None:
    raise BrokenError from ValueError("the cause")


async def bails(ctx: StepContext[Any]) -> None:
    await ctx.bail("enough")


CASES: dict[str, Any] = {
    "success": lambda: [step("a", note), step("b", note)],
    "failure": lambda: [step("a", note), step("broken", broken)],
    "bail": lambda: [step("a", note), step("bails", bails), step("never")],
    "deeper": lambda: [create_workflow(id="deep").then(step("a", note)).then(step("b", note)).commit()],
}


@pytest.mark.parametrize("case", CASES)
async def test_records_events_state_and_context_are_those_of_one_that_runs_in_its_parent(case: str):
    stories = []
    for options in ({}, {"concurrency": None}):
        workflow = create_workflow(id="w").then(step("before", note)).then(inner(*CASES[case](), **options))
        async with on_engine(workflows=[workflow.then(step("after", None)).commit()]) as served:
            run = await workflow.create_run()
            result = await run.start(1, request_context={"old": 1, "kept": 2})
            stories.append(await story(served, result.run_id))
            assert invoked(served) == (0 if options else 1)
    assert stories[0] == stories[1]


async def test_one_step_at_a_time_it_is_invoked_for_each_and_told_as_one_that_runs_in_its_parent():
    stories = []
    for options in ({}, {"concurrency": None}):
        nested = inner(step("a", note), step("b", note), **options)
        workflow = create_workflow(id="w").then(step("before", note)).then(nested).then(step("after", note))
        async with on_engine(workflows=[workflow.commit()]) as served:
            run = await workflow.create_run()
            results = [await run.start(1, per_step=True)]
            while results[-1].status == "paused":
                results.append(await run.resume(per_step=True))
            stories.append((await story(served, run.run_id), [list(r.steps) for r in results]))
            assert (results[-1].result, set(ran.values()), invoked(served)) == (5, {1}, 0 if options else 3)
            ran.clear()
    assert stories[0] == stories[1]


async def test_a_failure_carries_the_error_with_its_attributes_and_cause():
    workflow = create_workflow(id="w").then(inner(step("broken", broken))).commit()
    async with on_engine(workflows=[workflow]) as served:
        error = (await served.start("w", 1)).steps["inner"].error
        assert (error.name, error.message, error.hint) == ("BrokenError", "broken", "mend it")
        assert (error.cause.name, ran["broken"]) == ("ValueError", 1)


async def test_the_engine_shows_that_it_failed_and_the_parent_knows_all_of_the_error():
    workflow = create_workflow(id="w").parallel([inner(step("broken", broken)), step("other")]).commit()
    async with on_engine(workflows=[workflow]) as served:
        assert (await served.start("w", 1)).steps["inner"].error.hint == "mend it"
        query = "SELECT status FROM runs WHERE slug = 'test-workflow.inner'"
        assert served.engine._store.db.execute(query).fetchall() == [("Failed",)]


async def test_what_one_that_is_cut_off_had_changed_is_known_to_the_run():
    nested = create_workflow(id="inner", timeouts=inngest.Timeouts(finish=timedelta(seconds=1)))
    nested = nested.then(step("a", note)).sleep(60_000).commit()
    async with on_engine(workflows=[create_workflow(id="w").then(nested).commit()]) as served:
        result = await served.start("w", 1)
        assert (result.status, result.state) == ("failed", {"seen": [1]})
        assert "cancel" in result.steps["inner"].error.message


async def test_a_refused_start_fails_the_nested_record_and_says_why():
    hourly = inngest.RateLimit(limit=1, period=timedelta(hours=1))
    limited = inner(step("a"), concurrency=None, rate_limit=hourly)
    async with on_engine(workflows=[create_workflow(id="w").then(limited).commit()]) as served:
        first, second = await served.start("w", 1), await served.start("w", 2)
        assert (first.result, second.status) == (1, "failed")
        assert "rate limited" in second.steps["inner"].error.message


async def test_foreach_over_one_invokes_it_once_for_each_item_and_no_more_for_replays():
    nested = inner(step("a", plus_one), step("b", note))
    workflow = create_workflow(id="w").foreach(nested, concurrency=3).then(step("end")).commit()
    async with on_engine(workflows=[workflow]) as served:
        result = await served.start("w", list(range(7)))
        assert result.result == [n + 2 for n in range(7)]
        assert (ran["a"], ran["b"], ran["end"], invoked(served)) == (7, 7, 1, 7)


async def test_each_iteration_of_a_loop_is_invoked_anew():
    workflow = create_workflow(id="w").dountil(inner(step("a", plus_one)), lambda ctx: ctx.input_data >= 4)
    async with on_engine(workflows=[workflow.commit()]) as served:
        assert (await served.start("w", 0)).result == 4
        assert (ran["a"], invoked(served)) == (4, 4)


async def test_a_suspension_inside_is_resumed_by_its_path():
    async def ask(ctx: StepContext[Any]) -> Any:
        if ctx.resume_data is None:
            await ctx.suspend({"why": "?"})
        return ctx.input_data + ctx.resume_data["n"]

    nested = inner(step("a", note), step("ask", ask))
    workflow = create_workflow(id="w").then(nested).then(step("end", note)).commit()
    async with on_engine(workflows=[workflow]) as served:
        run = await workflow.create_run()
        result = await run.start(1, initial_state={"seen": []})
        assert (result.status, result.suspended) == ("suspended", [["inner", "ask"]])
        result = await run.resume(step="inner.ask", resume_data={"n": 10})
        assert (result.status, result.result, ran["a"], ran["ask"]) == ("success", 13, 1, 2)
        assert (len(result.state["seen"]), result.steps["inner"].payload, invoked(served)) == (2, 1, 2)


async def test_cancel_of_the_parent_ends_the_nested_function():
    begun, seen = asyncio.Event(), asyncio.Event()

    async def wait(ctx: StepContext[Any]) -> None:
        begun.set()
        await ctx.abort_signal.wait()
        seen.set()

    workflow = create_workflow(id="w").then(inner(step("wait", wait), step("never"))).commit()
    async with on_engine(workflows=[workflow]), asyncio.timeout(30):
        run = await workflow.create_run()
        await run.start_async(1)
        await begun.wait()
        await run.cancel()
        await seen.wait()
        events = [event.type async for event in run.observe_stream()]
        assert (events[-1], ran["never"]) == ("workflow-canceled", 0)


async def test_cancel_of_the_parent_ends_a_nested_function_that_sleeps_in_the_engine():
    nested = create_workflow(id="inner", concurrency=ONE).then(step("first")).sleep(60_000).commit()
    workflow = create_workflow(id="w").then(nested).commit()
    async with on_engine(workflows=[workflow]) as served, asyncio.timeout(30):
        run = await workflow.create_run()
        await run.start_async(1)
        while not ran["first"]:  # noqa: ASYNC110 - steps note that they ran, no more
            await asyncio.sleep(0.01)
        await run.cancel()
        while (status := statuses(served)) != ["Cancelled"] * 2:
            assert "Failed" not in status
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("options", [{"concurrency": ONE}, {}])
async def test_a_run_waits_while_one_sleeps_whether_it_is_invoked_or_not(options: Any):
    seen: list[Any] = []

    async def look(ctx: StepContext[Any]) -> None:
        seen.append(await ctx.app.storage.get_status("w", ctx.run_id))

    nested = (
        create_workflow(id="inner", **options).then(step("a")).sleep(700).then(step("look", look)).commit()
    )
    workflow = create_workflow(id="w").then(nested).commit()
    async with on_engine(workflows=[workflow]) as served, asyncio.timeout(30):
        run = await workflow.create_run()
        await run.start_async(1)
        status, waiting = served.app.storage.get_status, "workflow-step-waiting"
        found = [await status("w", run.run_id) async for e in run.observe_stream() if e.type == waiting]
        assert (found, seen) == ([("waiting", 1)], [("running", 1)])


async def test_a_lost_run_goes_on_inside_with_the_state_it_had_and_runs_no_finished_step_again():
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def wait(ctx: StepContext[Any]) -> Any:
        begun.set()
        await go_on.wait()
        return ctx.state["seen"]

    nested = inner(step("a", note), step("wait", wait))
    workflow = create_workflow(id="w").then(nested).then(step("end")).commit()
    async with on_engine(workflows=[workflow]) as served, asyncio.timeout(30):
        run = await workflow.create_run()
        await run.start_async(7)
        await begun.wait()
        engine_run = (await served.app.storage.load_snapshot("w", run.run_id) or {})["engineRunId"]
        (await served.front.http.delete(f"{served.engine.url}/v1/runs/{engine_run}")).raise_for_status()
        await run.restart_async()
        go_on.set()
        assert [event.type async for event in run.observe_stream()][-1] == "workflow-finish"
        stored = await served.app.storage.get_run("w", run.run_id)
        assert stored is not None
        assert (stored.status, stored.result, stored.state) == ("success", [7], {"seen": [7]})
        assert (ran["a"], ran["wait"], ran["end"]) == (1, 2, 1)


async def test_time_travel_to_a_step_inside_runs_from_there():
    nested = inner(step("a", note), step("b", note))
    workflow = create_workflow(id="w").then(nested).then(step("end", plus_one)).commit()
    async with on_engine(workflows=[workflow]) as served:
        run = await workflow.create_run()
        assert (await run.start(1)).result == 4
        result = await run.time_travel("inner.b")
        assert (result.result, ran["a"], ran["b"], ran["end"], invoked(served)) == (4, 1, 2, 2, 2)


async def test_one_in_another_is_a_function_too_and_sees_its_state():
    deep = create_workflow(id="inner-deep", concurrency=ONE).then(step("b", note)).commit()
    nested = inner(step("a", note), deep, step("c", note))
    workflow = create_workflow(id="w").then(nested).then(step("end", note)).commit()
    async with on_engine(workflows=[workflow]) as served:
        result = await served.start("w", 1)
        assert (result.result, result.state) == (5, {"seen": [1, 2, 3, 4]})
        assert invoked(served) == 2


async def test_other_arms_run_once_while_one_is_invoked_and_all_state_is_kept():
    async def own(ctx: StepContext[Any]) -> Any:
        ctx.set_state({"own": ctx.input_data})
        return ctx.input_data

    async def inside(ctx: StepContext[Any]) -> Any:
        ctx.set_state({"inside": ctx.input_data})
        return ctx.input_data

    chain = create_workflow(id="chain").then(step("own", own)).sleep(5).then(step("last")).commit()
    workflow = create_workflow(id="w").parallel([inner(step("a", inside)), chain]).then(step("end")).commit()
    async with on_engine(workflows=[workflow]) as served:
        result = await served.start("w", 1)
        assert (result.result, result.state) == ({"inner": 1, "chain": 1}, {"own": 1, "inside": 1})
        assert (ran, invoked(served)) == ({"own": 1, "last": 1, "a": 1, "end": 1}, 1)


async def test_a_request_that_was_given_up_inside_runs_nothing_again():
    nested = inner(*(step(id, note) for id in "abc"))
    workflow = create_workflow(id="w").then(nested).commit()
    async with on_engine(workflows=[workflow]) as served:
        refusals = iter([None, None, 409])
        served.front.refuse = lambda path: next(refusals, None) if path.startswith("/v1/checkpoint") else None
        result = await served.start("w", 1)
        assert (result.result, result.state, ran) == (4, {"seen": [1, 2, 3]}, dict.fromkeys("abc", 1))
        assert next(refusals, "used") == "used"


async def test_callbacks_of_the_nested_workflow_are_told_once_with_its_steps():
    told: list[Any] = []
    nested = inner(step("a", note), step("b", note), on_finish=told.append)
    async with on_engine(workflows=[create_workflow(id="w").then(nested).commit()]) as served:
        await served.start("w", 1)
        (info,) = told
        assert (list(info.steps), info.result, info.state) == (["a", "b"], 3, {"seen": [1, 2]})


async def test_a_nested_workflow_longer_than_a_leg_goes_on_in_later_ones():
    loop = create_workflow(id="inner", concurrency=ONE)
    loop = loop.dountil(step("a", plus_one), lambda ctx: ctx.input_data >= 20).commit()
    workflow = create_workflow(id="w").then(loop).then(step("end")).commit()
    async with on_engine(workflows=[workflow], leg_limits=LegLimits(steps=6)) as served:
        assert (await served.start("w", 0)).result == 20
        assert (ran["a"], ran["end"]) == (20, 1)


async def test_what_is_too_large_for_an_event_goes_through_storage():
    async def grow(ctx: StepContext[Any]) -> Any:
        ctx.set_state({"large": "s" * 150_000})
        return ctx.input_data + "x"

    workflow = create_workflow(id="w").then(inner(step("a", grow), step("b", grow))).commit()
    async with on_engine(workflows=[workflow]):
        run = await workflow.create_run()
        result = await run.start("i" * 150_000, initial_state={"given": "g" * 1000})
        assert (result.result, len(result.state["large"]), result.state["given"]) == (
            "i" * 150_000 + "xx", 150_000, "g" * 1000,
        )  # fmt: skip


async def test_without_checkpoints_it_is_invoked_once_too():
    nested = inner(step("a", plus_one), step("b", note))
    workflow = create_workflow(id="w").foreach(nested, concurrency=2).commit()
    async with on_engine(workflows=[workflow]) as served:
        served.front.refuse = lambda path: 404 if "checkpoint" in path else None
        assert (await served.start("w", [1, 2, 3])).result == [3, 4, 5]
        assert (ran["a"], ran["b"], invoked(served)) == (3, 3, 3)
