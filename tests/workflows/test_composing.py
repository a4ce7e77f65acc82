"""Workflows put together from steps, clones, maps and other workflows, as applications do."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from flowctl import clone_step, clone_workflow, create_step, create_workflow, step
from tests.workflows.making import Ran, start


class Start(BaseModel):
    start: int


class Final(BaseModel):
    final: int


def summing(ran: Ran) -> Any:
    """start adds one, other gives 26, final adds both."""
    begin = ran.step("start", lambda ctx: {"new": ctx.input_data.start + 1}, input_schema=Start)
    other = ran.step("other", lambda ctx: {"other": 26})

    def final(ctx: Any) -> Any:
        known = ctx.get_step_result("other") or ctx.get_step_result("other-clone") or {"other": 0}
        return {"final": ctx.get_step_result("start")["new"] + known["other"]}

    return begin, other, ran.step("final", final, output_schema=Final)


async def test_clones_of_workflows_are_steps_of_a_larger_one(register) -> None:
    ran = Ran()
    begin, other, final = summing(ran)
    a = create_workflow(id="a", input_schema=Start).then(begin).then(clone_step(other, id="other-clone"))
    b = create_workflow(id="b", input_schema=Start).then(begin).then(clone_step(final, id="final-clone"))
    a.then(final).commit()
    workflow = create_workflow(id="w").parallel([clone_workflow(a, id="a-clone"), b.commit()])
    workflow.then(ran.step("last", lambda ctx: {"success": True}))
    await register(workflow)
    result = await start(workflow, {"start": 0})
    assert (result.steps["a-clone"].output, result.steps["b"].output) == ({"final": 27}, {"final": 1})
    assert (sorted(ran), result.raw_result) == (
        ["final", "final", "last", "other", "start", "start"], {"success": True}
    )  # fmt: skip


async def test_the_result_of_a_nested_workflow_is_the_typed_input_of_the_next_step(register) -> None:
    ran = Ran()
    begin, other, final = summing(ran)
    nested = create_workflow(id="nested", input_schema=Start, output_schema=Final)
    nested.then(begin).then(other).then(final).commit()

    def last(ctx: Any) -> Any:
        assert isinstance(ctx.input_data, Final)
        return {"success": True}

    workflow = create_workflow(id="w").then(nested).then(ran.step("last", last, input_schema=Final))
    await register(workflow)
    result = await start(workflow, {"start": 0})
    assert (result.steps["nested"].output, result.steps["last"].payload) == ({"final": 27}, {"final": 27})
    assert (result.raw_result, ran) == ({"success": True}, ["start", "other", "final", "last"])


@pytest.mark.parametrize(("mapped", "doubled"), [(False, 10), (True, 12)])
async def test_a_plain_function_is_a_step_alone_and_after_a_map(register, mapped: bool, doubled: int) -> None:
    @step(id="double-tool")
    def double(data: Start) -> dict[str, int]:
        return {"doubled": data.start * 2}

    workflow = create_workflow(id="w", input_schema=Start)
    if mapped:
        workflow.map(lambda ctx: {"start": ctx.input_data.start + 1})
    await register(workflow.then(double))
    assert (await start(workflow, {"start": 5})).steps["double-tool"].output == {"doubled": doubled}


async def test_two_kinds_of_steps_run_in_parallel_on_one_input(register) -> None:
    ran = Ran()
    double = ran.step("double", lambda ctx: {"doubled": ctx.input_data["value"] * 2})
    talk = ran.step("talk", lambda ctx: {"text": f"hello {ctx.input_data['prompt']}"})
    workflow = create_workflow(id="w").parallel([double, talk])
    await register(workflow)
    result = await start(workflow, {"value": 4, "prompt": "world"})
    assert result.raw_result == {"double": {"doubled": 8}, "talk": {"text": "hello world"}}


async def test_an_error_of_a_later_step_leaves_the_earlier_one_a_success(register) -> None:
    def limited(ctx: Any) -> None:
        raise RuntimeError("LLM API rate limit exceeded")

    ran = Ran()
    workflow = create_workflow(id="w").then(ran.step("prepare", lambda ctx: "ready"))
    await register(workflow.then(ran.step("call", limited)))
    result = await start(workflow)
    assert (result.status, result.error.message) == ("failed", "LLM API rate limit exceeded")
    assert [record.status for record in result.steps.values()] == ["success", "failed"]


async def test_two_nested_workflows_in_parallel_after_a_map_meet_in_the_next_step(register) -> None:
    ran = Ran()

    def answering(id: str) -> Any:
        answer = ran.step(f"{id}-step", lambda ctx: {"text": f"{id}: {ctx.input_data['prompt']}"})
        return create_workflow(id=id).then(answer).commit()

    both = [answering("first"), answering("second")]
    workflow = create_workflow(id="w").then(ran.step("begin"))
    workflow.map({"prompt": {"step": "begin", "path": "prompt1"}}).parallel(both)
    workflow.then(ran.step("end", lambda ctx: [ctx.input_data[arm.id]["text"] for arm in both]))
    await register(workflow)
    result = await start(workflow, {"prompt1": "Hello", "prompt2": "World"})
    assert result.raw_result == ["first: Hello", "second: Hello"]


async def test_a_step_three_levels_down_is_reached_and_its_answer_comes_back(register) -> None:
    ran = Ran()
    inner = create_workflow(id="inner").then(ran.step("deep", lambda ctx: f"Deep({ctx.input_data})")).commit()
    middle = create_workflow(id="middle").then(ran.step("middle-step")).then(inner).commit()
    workflow = create_workflow(id="w").then(middle).then(ran.step("final", lambda c: f"Final:{c.input_data}"))
    await register(workflow)
    assert (await start(workflow, "x")).raw_result == "Final:Deep(x)"
    assert ran == ["middle-step", "deep", "final"]


async def test_options_in_the_input_reach_the_step_unchanged(register) -> None:
    ran, options = Ran(), {"temperature": 0.7, "maxTokens": 1000, "instructions": "Be helpful"}
    workflow = create_workflow(id="w").then(ran.step("echo"))
    await register(workflow)
    assert (await start(workflow, options)).raw_result == options


async def test_a_step_reaches_its_app(register) -> None:
    ran = Ran()
    workflow = create_workflow(id="w").then(ran.step("look", lambda ctx: sorted(ctx.app.workflows)))
    await register(workflow)
    assert (await start(workflow)).raw_result == ["w"]


async def test_a_nested_map_reads_the_outer_input_and_results_of_clones(register) -> None:
    ran = Ran()
    ask = ran.step("ask", lambda ctx: ctx.input_data["city"])
    again = clone_step(ask, id="ask-again")
    outer = create_workflow(id="outer")
    inner = create_workflow(id="inner").map({"city": {"value": "Paris"}}, id="constant").then(ask)
    inner.map({"city": {"init_data": True, "path": "capital"}}, id="given").then(again)
    inner.then(
        ran.step("join", lambda ctx: f"{ctx.get_step_result(ask)} {ctx.get_step_result(again)}")
    ).commit()
    outer.map({"capital": {"init_data": outer, "path": "where"}}).then(inner)
    await register(outer)
    assert (await start(outer, {"where": "London"})).raw_result == "Paris London"


def test_a_workflow_as_a_step_stays_itself() -> None:
    nested = create_workflow(id="nested").then(Ran().step("one")).commit()
    workflow = create_workflow(id="w").then(nested)
    assert workflow.steps["nested"] is nested


def test_there_is_no_waiting_for_events_but_suspend_and_resume() -> None:
    with pytest.raises(AttributeError, match=r"has been removed.*ctx\.suspend\(\)"):
        create_workflow(id="w").wait_for_event("paid")
    with pytest.raises(AttributeError, match="no attribute 'wait'"):
        create_workflow(id="w").wait()
    assert not hasattr(create_step(id="s", execute=lambda ctx: None), "send_event")
