"""Loops and foreach as applications use them: what goes round, what is counted, what state is seen."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from flowctl import create_workflow
from tests.workflows.making import Ran, start


@pytest.mark.parametrize("kind", ["dountil", "dowhile"])
async def test_a_loop_counts_up_and_the_next_step_gets_where_it_ended(register, kind: str) -> None:
    ran = Ran()
    add = ran.step("increment", lambda ctx: {**ctx.input_data, "value": ctx.input_data["value"] + 1})
    workflow = create_workflow(id="w")
    if kind == "dountil":
        workflow.dountil(add, lambda ctx: ctx.input_data["value"] >= 12)
    else:
        workflow.dowhile(add, lambda ctx: ctx.input_data["value"] < 12)
    workflow.then(ran.step("final", lambda ctx: {"finalValue": ctx.input_data["value"]}))
    await register(workflow)
    result = await start(workflow, {"target": 10, "value": 0})
    assert (result.raw_result, result.steps["increment"].output["value"]) == ({"finalValue": 12}, 12)
    assert result.steps["increment"].metadata == {"iterationCount": 12}
    assert ran == ["increment"] * 12 + ["final"]


async def test_a_loop_accumulates(register) -> None:
    def add(ctx: Any) -> Any:
        count = ctx.input_data["count"] + 1
        return {"count": count, "items": [*ctx.input_data["items"], f"item-{count}"]}

    workflow = create_workflow(id="w").dountil(
        Ran().step("add", add), lambda ctx: ctx.input_data["count"] >= 3
    )
    await register(workflow)
    result = await start(workflow, {"count": 0, "items": []})
    assert result.raw_result == {"count": 3, "items": ["item-1", "item-2", "item-3"]}


async def test_two_loops_one_after_the_other_count_for_themselves(register) -> None:
    ran, seen = Ran(), []

    def add(ctx: Any) -> Any:
        seen.append(ctx.retry_count)
        return {"count": ctx.input_data["count"] + 1}

    workflow = create_workflow(id="w").dowhile(ran.step("one", add), lambda ctx: ctx.input_data["count"] < 3)
    workflow.dountil(ran.step("two", add), lambda ctx: ctx.input_data["count"] == 10)
    await register(workflow)
    result = await start(workflow, {"count": 0})
    assert (result.steps["one"].output, result.steps["two"].output) == ({"count": 3}, {"count": 10})
    assert (set(seen), ran) == ({0}, ["one"] * 3 + ["two"] * 7)


async def test_foreach_takes_one_item_after_the_other_unless_told_otherwise(register) -> None:
    under_way: list[int] = []

    async def add(ctx: Any) -> Any:
        assert under_way == []
        under_way.append(1)
        await asyncio.sleep(0.002)
        under_way.clear()
        return {"value": ctx.input_data["value"] + 11}

    ran, items = Ran(), [{"value": 1}, {"value": 22}, {"value": 333}]
    workflow = create_workflow(id="w").foreach(ran.step("map", add))
    workflow.then(ran.step("sum", lambda ctx: {"final": sum(item["value"] for item in ctx.input_data)}))
    await register(workflow)
    result = await start(workflow, items)
    record = result.steps["map"]
    assert (record.payload, record.output) == (items, [{"value": 12}, {"value": 33}, {"value": 344}])
    assert (result.input, result.raw_result, ran) == (items, {"final": 389}, ["map"] * 3 + ["sum"])


async def test_foreach_over_nothing_is_a_success_and_runs_nothing(register) -> None:
    ran = Ran()
    workflow = create_workflow(id="w").foreach(ran.step("map"))
    workflow.then(ran.step("count", lambda ctx: {"count": len(ctx.input_data)}))
    await register(workflow)
    result = await start(workflow, [])
    assert (result.steps["map"].status, result.steps["map"].output) == ("success", [])
    assert (result.raw_result, ran) == ({"count": 0}, ["count"])


async def test_the_next_item_begins_as_soon_as_one_ends(register) -> None:
    third, under_way = asyncio.Event(), set()

    async def work(ctx: Any) -> int:
        under_way.add(ctx.input_data)
        if ctx.input_data == 2:
            third.set()
        if ctx.input_data == 0:
            await asyncio.wait_for(third.wait(), 20)  # the first item ends after the third began
        return ctx.input_data

    workflow = create_workflow(id="w").foreach(Ran().step("item", work), concurrency=2)
    await register(workflow)
    assert (await start(workflow, [0, 1, 2, 3])).raw_result == [0, 1, 2, 3]


@pytest.mark.parametrize(("given", "most"), [(lambda ctx: 2.9, 2), (lambda ctx: 0, 1), (lambda ctx: "x", 1)])
async def test_a_function_says_how_many_items_run_at_a_time(register, given: Any, most: int) -> None:
    running: set[int] = set()
    peak: list[int] = []

    async def work(ctx: Any) -> None:
        running.add(ctx.input_data)
        peak.append(len(running))
        await asyncio.sleep(0.002)
        running.discard(ctx.input_data)

    workflow = create_workflow(id="w").foreach(Ran().step("item", work), concurrency=given)
    await register(workflow)
    assert (await start(workflow, [1, 2, 3, 4])).status == "success"
    assert max(peak) == most


async def test_after_a_failing_item_no_other_begins_and_the_foreach_fails_with_its_error(register) -> None:
    def work(ctx: Any) -> int:
        if ctx.input_data == 2:
            raise ValueError("item 2")
        return ctx.input_data

    ran = Ran()
    workflow = create_workflow(id="w").foreach(ran.step("item", work)).then(ran.step("after"))
    await register(workflow)
    result = await start(workflow, [1, 2, 3])
    assert (result.status, result.error.message, ran) == ("failed", "item 2", ["item", "item"])
    assert (result.steps["item"].status, result.steps["item"].error.message) == ("failed", "item 2")


async def test_state_that_one_item_set_is_seen_by_the_next(register) -> None:
    def note(ctx: Any) -> int:
        if ctx.input_data > 1:
            ctx.set_state({"output": ctx.input_data})
        return ctx.input_data

    ran = Ran()
    large = create_workflow(id="large").then(ran.step("note", note)).commit()
    item = create_workflow(id="item").branch([(lambda ctx: ctx.input_data > 1, large)])
    item.then(ran.step("read", lambda ctx: ctx.state["output"])).commit()
    workflow = create_workflow(id="w").foreach(item)
    await register(workflow)
    result = await start(workflow, [2, 1], initial_state={"output": 0})
    assert (result.raw_result, result.state) == ([2, 2], {"output": 2})


async def test_an_item_that_bails_ends_the_run_with_what_it_gave(register) -> None:
    async def work(ctx: Any) -> None:
        if ctx.state["output"] > 1:
            await ctx.bail([15])
        ctx.set_state({"output": ctx.input_data})

    ran = Ran()
    workflow = create_workflow(id="w").foreach(ran.step("item", work)).then(ran.step("after"))
    await register(workflow)
    result = await start(workflow, [1, 2, 3, 4], initial_state={"output": 0})
    assert (result.status, result.raw_result, result.state) == ("success", [15], {"output": 2})
    assert ran == ["item"] * 3
