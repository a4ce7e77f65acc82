"""Branches: which arms run, what they get, and what is mapped from those that did not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from flowctl import create_workflow
from tests.workflows.making import Ran, start


@pytest.mark.parametrize("state", [None, {"value": "test-state"}])
async def test_a_map_takes_the_arm_that_ran_and_the_chain_goes_on(register, state: Any) -> None:
    ran = Ran()

    def giving(id: str, key: str, value: str) -> Any:
        return ran.step(id, lambda ctx: {key: value} | ctx.state)

    one, two, three = giving("1", "status", "success"), giving("2", "result", "2"), giving("3", "result", "3")
    arms = [
        (lambda ctx: ctx.input_data["status"] == "success", two),
        (lambda ctx: ctx.input_data["status"] == "failed", three),
    ]
    workflow = create_workflow(id="w").then(one).branch(arms)
    workflow.map({"result": {"step": [three, two], "path": "result"}})
    workflow.then(ran.step("4", lambda ctx: ctx.input_data | ctx.state))
    await register(workflow)
    result = await start(workflow, {"status": "success"}, initial_state=state)
    shown = {"result": "2"} | (state or {})
    assert (result.steps["2"].output, result.steps["4"].output) == (shown, shown)
    assert result.steps["2"].payload == {"status": "success"} | (state or {})
    assert (ran, "3" in result.steps) == (["1", "2", "4"], False)


async def test_a_map_from_a_step_that_did_not_run_fails_the_run_and_names_it(register) -> None:
    ran = Ran()
    one, two, three = ran.step("1", lambda ctx: {"status": "success"}), ran.step("2"), ran.step("3")
    workflow = create_workflow(id="w", validate_inputs=False).then(one)
    workflow.branch([(lambda ctx: ctx.input_data["status"] == "success", two)])
    workflow.map({"result": {"step": three, "path": "result"}})
    workflow.branch([(lambda ctx: ctx.input_data["result"] == "step3", three)])
    await register(workflow)
    result = await start(workflow, {})
    assert [(result.steps[id].status, result.steps[id].payload) for id in ("1", "2")] == [
        ("success", {}), ("success", {"status": "success"}),
    ]  # fmt: skip
    assert (ran, result.status, result.error.message) == (
        ["1", "2"],
        "failed",
        "Invalid path result in step 3",
    )


async def test_a_condition_reads_earlier_results_and_an_arm_may_give_nothing(register) -> None:
    ran = Ran()
    one, two = ran.step("1", lambda ctx: {"count": 5}), ran.step("2", lambda ctx: None)
    workflow = create_workflow(id="w").then(one)
    workflow.branch([(lambda ctx: ctx.get_step_result(one)["count"] > 3, two)])
    await register(workflow)
    record = (await start(workflow)).steps["2"]
    assert (record.status, record.payload, record.output) == ("success", {"count": 5}, None)


@pytest.mark.parametrize(
    ("given", "inner", "output", "ran"),
    [(1, "final", {"final": 2}, ["start", "final"]), (6, "else", {"final": 33}, ["start", "other", "final"])],
)
async def test_one_arm_is_a_step_and_the_other_a_workflow(
    register, given: int, inner: str, output: Any, ran: list[str]
) -> None:
    seen = Ran()
    begin = seen.step("start", lambda ctx: {"new": ctx.input_data["start"] + 1})
    other = seen.step("other", lambda ctx: {"other": 26})
    sum_up = seen.step(
        "final",
        lambda ctx: {
            "final": ((ctx.get_step_result(begin) or ctx.get_init_data())["new"])
            + (ctx.get_step_result("other") or {"other": 0})["other"]
        },
    )
    nested = create_workflow(id="else").then(other).then(sum_up).commit()
    workflow = create_workflow(id="w").then(begin)
    workflow.branch(
        [(lambda ctx: ctx.input_data["new"] < 5, sum_up), (lambda ctx: ctx.input_data["new"] >= 5, nested)]
    )
    await register(workflow)
    result = await start(workflow, {"start": given})
    assert (result.raw_result, result.steps[inner].output, seen) == ({inner: output}, output, ran)
    assert list(result.steps) == ["start", inner]


@pytest.mark.parametrize(("value", "taken"), [(10, "low"), (50, "medium"), (80, "high")])
async def test_of_three_arms_the_one_whose_condition_holds_runs(register, value: int, taken: str) -> None:
    ran = Ran()
    workflow = create_workflow(id="w").then(ran.step("read")).branch(
        [
            (lambda ctx: ctx.input_data < 33, ran.step("low", lambda ctx: "low")),
            (lambda ctx: 33 <= ctx.input_data < 66, ran.step("medium", lambda ctx: "medium")),
            (lambda ctx: ctx.input_data >= 66, ran.step("high", lambda ctx: "high")),
        ]
    )  # fmt: skip
    await register(workflow)
    result = await start(workflow, value)
    assert (result.raw_result, ran) == ({taken: taken}, ["read", taken])


@pytest.mark.parametrize(("raw", "text"), [(100, "processed: 200, flag: True"), (25, "small: 50")])
async def test_an_arm_gets_what_the_step_before_the_branch_gave(register, raw: int, text: str) -> None:
    ran = Ran()

    def double(ctx: Any) -> Any:
        return {"value": ctx.input_data["raw"] * 2, "flag": ctx.input_data["raw"] > 50}

    def large(ctx: Any) -> str:
        return f"processed: {ctx.input_data['value']}, flag: {ctx.input_data['flag']}"

    def small(ctx: Any) -> str:
        return f"small: {ctx.input_data['value']}"

    workflow = create_workflow(id="w").then(ran.step("double", double)).branch(
        [
            (lambda ctx: ctx.input_data["flag"], ran.step("large", large)),
            (lambda ctx: not ctx.input_data["flag"], ran.step("small", small)),
        ]
    )  # fmt: skip
    await register(workflow)
    assert list((await start(workflow, {"raw": raw})).raw_result.values()) == [text]


async def test_no_arm_at_all_gives_an_empty_object_and_the_run_goes_on(register) -> None:
    ran = Ran()
    workflow = (
        create_workflow(id="w").branch([(lambda ctx: False, ran.step("never"))]).then(ran.step("after"))
    )
    await register(workflow)
    result = await start(workflow, 1)
    assert (result.status, result.raw_result, ran) == ("success", {}, ["after"])


async def test_a_condition_may_be_async_and_all_are_asked_at_once(register) -> None:
    meeting = asyncio.Barrier(2)

    async def meets(ctx: Any) -> bool:
        await asyncio.wait_for(meeting.wait(), 20)
        return True

    ran = Ran()
    workflow = create_workflow(id="w").branch([(meets, ran.step("a")), (meets, ran.step("b"))])
    await register(workflow)
    assert (await start(workflow, 1)).raw_result == {"a": 1, "b": 1}
