"""A leg on Inngest goes on by at least one step, however large the state is that it begins with."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import inngest
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flowctl import App, MemoryStorage, StateTooLargeError, StepContext, create_step, create_workflow
from flowctl.legs import LegLimits
from tests.runners.front import on_engine
from tests.runners.test_mapping import function_run
from tests.runners.test_roll_over import legs, refuses_checkpoints

MB = 2**20


def put(id: str, size: int) -> Any:
    """A step that adds so many bytes to the state."""

    async def execute(ctx: StepContext[Any]) -> int:
        ctx.set_state({id: "x" * size})
        return sum(map(len, ctx.state.values()))

    return create_step(id=id, execute=execute)


def three_steps(**options: Any) -> Any:
    workflow = create_workflow(id="w", **options)
    return workflow.then(put("a", 5 * MB)).sleep(1).then(put("b", 100)).then(put("c", 100)).commit()


@pytest.mark.parametrize("by_request", [False, True], ids=["in-line", "a request a step"])
async def test_a_state_that_is_larger_than_a_leg_goes_on_leg_after_leg(by_request: bool):
    async with on_engine(workflows=[three_steps()], leg_limits=LegLimits(steps=2)) as served:
        if by_request:
            refuses_checkpoints(served)
        result = await served.start("w")
        assert (result.status, result.result, legs(served) >= 3) == ("success", 5 * MB + 100, True)
        assert max(len(str(body)) for body in served.bodies) < 10_000


async def test_a_first_state_that_is_larger_than_a_leg_is_what_its_replays_begin_with():
    async with on_engine(workflows=[three_steps()]) as served:
        run = await served.app.get_workflow("w").create_run()
        result = await run.start(initial_state={"before": "x" * 5 * MB})
        assert (result.status, result.result) == ("success", 10 * MB + 100)


async def test_an_event_that_is_larger_than_a_leg_begins_a_run_by_hand():
    workflow = create_workflow(id="w").then(put("a", 10)).sleep(1).then(put("b", 10)).commit()
    async with on_engine(workflows=[workflow], leg_limits=LegLimits(size=100)) as served:
        event = inngest.Event(name="workflow.w", data={"inputData": "x" * 1000})
        [event_id] = await served.app.inngest.send(event)
        begun = await function_run(served, event_id)
        run = await served.app.get_workflow("w").create_run(run_id=begun["run_id"])
        result = await run.observe_stream().result()
        assert (result.status, result.input, legs(served) > 1) == ("success", "x" * 1000, True)


async def test_a_result_that_is_too_large_for_an_engine_is_read_from_storage():
    async def much(ctx: StepContext[Any]) -> str:
        return "x" * 5 * MB

    workflow = create_workflow(id="w").then(create_step(id="much", execute=much)).commit()
    async with on_engine(workflows=[workflow]) as served:
        result = await served.start("w")
        assert len(result.result) == 5 * MB
        query = "SELECT status, output FROM runs WHERE slug LIKE '%continue' AND ended_at"
        async with asyncio.timeout(20):
            while not (ended := served.engine._store.db.execute(query).fetchall()):  # noqa: ASYNC110 - the engine tells by asking
                await asyncio.sleep(0.01)
        assert (ended[0][0], b"success" in ended[0][1], len(ended[0][1]) < 100) == ("Completed", True, True)


async def test_a_state_that_is_larger_than_any_may_be_fails_its_run_and_says_the_way_out():
    workflow = create_workflow(id="w").then(put("a", 20 * MB)).then(put("b", 20 * MB)).commit()
    async with on_engine(workflows=[workflow]) as served:
        result = await served.start("w")
        assert (result.status, result.steps["b"].error.name) == ("failed", "StateTooLargeError")
        assert "41,943,055 bytes of JSON; 33,554,432 is the most. Keep large data" in result.error.message
        with pytest.raises(StateTooLargeError):
            await served.start("w", initial_state={"a": "x" * 33 * MB})


async def test_a_leg_whose_steps_are_too_large_for_a_request_ends_as_any_other():
    async def much(ctx: StepContext[Any]) -> str:
        return "x" * 1_363_000

    workflow = create_workflow(id="w")
    a, b, c, d = (create_step(id=id, execute=much) for id in "abcd")
    workflow.then(a).then(b).then(c).sleep(300).then(d).commit()
    async with on_engine(workflows=[workflow]) as served:
        assert (await served.start("w", "x" * 120_000)).status == "success"
        assert (legs(served), any(body["use_api"] for body in served.bodies)) == (1, True)


class Made:
    """A workflow of a sketch, and how often each of its steps has ended: `count` by the step's id."""

    def __init__(self, sketch: Any) -> None:
        self.count: Counter[str] = Counter()
        self.names = iter(range(1000))
        self.workflow = self.chain("w", sketch)

    def chain(self, id: str, sketch: Any) -> Any:
        workflow = create_workflow(id=id)
        for kind, *inner in sketch:
            getattr(self, kind)(workflow, *inner)
        return workflow.commit()

    def made(self, prefix: str = "step", tries: int = 1) -> Any:
        id = f"{prefix}{next(self.names)}"

        async def execute(ctx: StepContext[Any]) -> int:
            if ctx.retry_count < tries - 1:
                raise ValueError("not yet")
            self.count[f"{id}:{ctx.input_data}"] += 1
            ctx.set_state({id: ctx.input_data})
            return ctx.input_data + 1

        return create_step(id=id, execute=execute, retries=tries - 1)

    def arms(self, chains: Any) -> list[Any]:
        return [self.chain(f"arm{next(self.names)}", sketch) for sketch in chains]

    def then(self, workflow: Any) -> None:
        workflow.then(self.made())

    def again(self, workflow: Any) -> None:
        workflow.then(self.made("again", tries=3))

    def fail(self, workflow: Any) -> None:
        workflow.sleep(lambda ctx: 1 // 0)

    def bail(self, workflow: Any) -> None:
        async def execute(ctx: StepContext[Any]) -> Any:
            return await ctx.bail(ctx.input_data)

        workflow.then(create_step(id=f"bail{next(self.names)}", execute=execute))

    def nap(self, workflow: Any) -> None:
        workflow.sleep(2)

    def loop(self, workflow: Any, sketch: Any) -> None:
        body = self.chain(f"body{next(self.names)}", [*sketch, ("then",)])
        workflow.dountil(body, lambda ctx: ctx.iteration_count >= 2)

    def each(self, workflow: Any, sketch: Any) -> None:
        workflow.map(lambda ctx: [ctx.input_data + n for n in range(3)])
        workflow.foreach(self.chain(f"item{next(self.names)}", sketch), concurrency=2)
        workflow.map(lambda ctx: sum(ctx.input_data))

    def parallel(self, workflow: Any, *chains: Any) -> None:
        workflow.parallel(self.arms(chains)).map(lambda ctx: sum(ctx.input_data.values()))

    def branch(self, workflow: Any, *chains: Any) -> None:
        workflow.branch([(lambda ctx: True, arm) for arm in self.arms(chains)])
        workflow.map(lambda ctx: sum(ctx.input_data.values()))


simple = st.sampled_from([("then",), ("again",), ("nap",)])
simple_chains = st.lists(simple, min_size=1, max_size=2)
nodes = st.one_of(
    simple,
    st.tuples(st.sampled_from(["loop", "each"]), simple_chains),
    st.tuples(st.sampled_from(["parallel", "branch"]), simple_chains, simple_chains),
)
ALL = [
    ("nap",),
    ("each", [("nap",), ("then",)]),
    ("parallel", [("loop", [("nap",)])], [("again",), ("nap",)]),
    ("branch", [("parallel", [("then",)], [("nap",)])], [("then",)]),
]


@settings(max_examples=4, deadline=None, derandomize=True)
@given(st.lists(nodes, min_size=1, max_size=3), st.sampled_from([1, 100, 600]), st.booleans())
@example(ALL, 1, False)
@example(ALL, 1, True)
@example(ALL, 300, False)
@example([("each", [("then",), ("bail",)]), ("then",)], 1, False)
@example([("parallel", [("nap",), ("fail",)], [("then",)]), ("then",)], 1, False)
@example([("then",), ("fail",)], 1, True)
def test_any_workflow_comes_to_the_same_however_small_its_legs_are(sketch: Any, size: int, by_request: bool):
    async def outcome(made: Made, **options: Any) -> Any:
        async with on_engine(workflows=[made.workflow], **options) as served, asyncio.timeout(60):
            if by_request:
                refuses_checkpoints(served)
            result = await served.start("w", 1)
        return result, made.count

    async def check() -> None:
        app = App(workflows=[Made(sketch).workflow], storage=MemoryStorage(), engine="local")
        local = await (await app.get_workflow("w").create_run()).start(1)
        result, count = await outcome(Made(sketch), leg_limits=LegLimits(size=size))
        assert (result.status, result.result, result.state) == (local.status, local.result, local.state)
        assert str(result.error) == str(local.error)
        assert set(count.values()) <= {1}

    asyncio.run(check())
