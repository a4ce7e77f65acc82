"""What flows from step to step: input, mappings, templates, results of earlier steps, what is copied."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from flowctl import (
    DefinitionError,
    StepContext,
    ValidationError,
    create_step,
    create_workflow,
    map_variable,
    step,
)  # fmt: skip


@step
async def same(data: Any) -> Any:
    return data


def giving(id: str, output: Any) -> Any:
    async def give(ctx: StepContext[Any]) -> Any:
        return output

    return create_step(id=id, execute=give)


async def run(workflow: Any, input_data: Any = None, **options: Any) -> Any:
    return await (await workflow.create_run()).start(input_data, **options)


async def test_each_step_gets_what_the_one_before_it_gave_and_records_keep_both(register) -> None:
    workflow = create_workflow(id="w").then(giving("one", {"n": 1})).then(same)
    await register(workflow)
    result = await run(workflow, {"foo": "hello", "bar": 42})
    assert result.input == {"foo": "hello", "bar": 42}
    assert (result.steps["one"].payload, result.steps["one"].output) == (result.input, {"n": 1})
    assert (result.steps["same"].payload, result.steps["same"].output) == ({"n": 1}, {"n": 1})
    assert list(result.steps) == result.step_execution_path == ["one", "same"]


async def test_an_input_may_look_like_the_payload_of_an_event(register) -> None:
    workflow = create_workflow(id="w").then(same).then(giving("two", {"result": "success"}))
    await register(workflow)
    given = {"inputData": "test-input", "data": {"inputData": 1}, "runId": "mine"}
    result = await run(workflow, given)
    assert (result.input, result.steps["same"].output, result.steps["two"].status) == (
        given,
        given,
        "success",
    )
    assert result.run_id != "mine"


async def test_a_list_is_passed_on_as_the_list_it_is(register) -> None:
    workflow = create_workflow(id="w").then(giving("one", [{"str": "step1-data"}])).then(same)
    await register(workflow)
    assert (await run(workflow)).steps["same"].payload == [{"str": "step1-data"}]


async def test_a_step_may_give_nothing(register) -> None:
    workflow = create_workflow(id="w").then(giving("one", {"data": "success"}))
    workflow.map({"data": {"step": "one", "path": "data"}}).then(giving("two", None))
    await register(workflow)
    result = await run(workflow)
    record = result.steps["two"]
    assert (record.status, record.payload, record.output) == ("success", {"data": "success"}, None)
    assert (result.status, result.result) == ("success", None)


async def test_a_step_reads_the_input_and_the_results_of_others_by_step_or_id(register) -> None:
    one = giving("one", {"value": "one"})

    async def read(ctx: StepContext[Any]) -> Any:
        other = ctx.get_step_result("nobody")
        return [ctx.get_init_data(), ctx.get_step_result(one), ctx.get_step_result("one"), other]

    workflow = create_workflow(id="w").then(one).then(create_step(id="read", execute=read))
    await register(workflow)
    assert (await run(workflow, {"cool": "x"})).raw_result == [
        {"cool": "x"}, {"value": "one"}, {"value": "one"}, None,
    ]  # fmt: skip


async def test_what_a_step_does_to_its_data_is_seen_by_nobody_else(register) -> None:
    async def vandal(ctx: StepContext[Any]) -> str:
        for data in (ctx.input_data, ctx.get_init_data(), ctx.get_step_result("one"), ctx.state):
            data["list"].append("mine")
        return "done"

    async def look(ctx: StepContext[Any]) -> Any:
        return [ctx.get_init_data(), ctx.get_step_result("one"), ctx.state]

    clean = {"list": []}
    workflow = create_workflow(id="w").then(giving("one", clean)).parallel(
        [create_step(id="vandal", execute=vandal), same]
    )  # fmt: skip
    workflow.then(create_step(id="look", execute=look))
    await register(workflow)
    result = await run(workflow, clean, initial_state=clean)
    assert result.raw_result == [clean, clean, clean]
    assert (result.steps["same"].output, result.steps["vandal"].payload) == (clean, clean)


class Holder(BaseModel):
    held: Any


async def test_what_callbacks_and_conditions_do_to_their_data_is_seen_by_nobody_else(register) -> None:
    def spoil(records: dict[str, Any]) -> bool:
        for record in records.values():
            (record.output or record.payload).setdefault("held", []).append("mine")
        return True

    def condition(ctx: StepContext[Holder]) -> bool:
        ctx.input_data.held.append("mine")
        return True

    workflow = create_workflow(
        id="w",
        on_finish=lambda info: info.result["held"].append("mine") or spoil(info.steps),
        should_persist_snapshot=lambda info: spoil(info.step_results),
    )
    one = create_step(id="one", output_schema=Holder, execute=lambda _: {"held": []})
    workflow.then(one).branch([(condition, same)]).map(lambda ctx: ctx.input_data["same"])
    await register(workflow)
    clean = {"held": []}
    result = await run(workflow, clean)
    assert (result.raw_result, result.steps["one"].output, result.steps["one"].payload) == (clean,) * 3


async def test_a_map_takes_a_path_of_a_step_and_constants_that_are_falsy(register) -> None:
    one = giving("one", {"nested": {"value": "deep", "list": [{"name": "first"}]}, "none": None})
    workflow = create_workflow(id="w").then(one)
    workflow.map(
        {
            "path": {"step": one, "path": "nested.value"},
            "item": map_variable(step="one", path="nested.list.0.name"),
            "whole": {"step": one, "path": "."},
            "missing": {"step": one, "path": "nested.absent"},
            "zero": {"value": 0},
            "empty": {"value": []},
            "input": {"init_data": workflow, "path": ""},
        }
    )
    await register(workflow)
    result = await run(workflow, {"in": 1})
    assert result.raw_result == {
        "path": "deep", "item": "first", "whole": result.steps["one"].output, "missing": None,
        "zero": 0, "empty": [], "input": {"in": 1},
    }  # fmt: skip


async def test_a_map_from_several_steps_takes_the_first_that_has_run(register) -> None:
    a, b = giving("a", {"result": "a"}), giving("b", {"result": "b"})
    workflow = create_workflow(id="w").branch([(lambda ctx: False, a), (lambda ctx: True, b)])
    workflow.map({"result": {"step": [a, b], "path": "result"}})
    await register(workflow)
    assert (await run(workflow)).raw_result == {"result": "b"}


async def test_a_map_stands_between_steps_and_another_after_them(register) -> None:
    async def greet(ctx: StepContext[Any]) -> str:
        return f"Hello {ctx.input_data['result']}"

    one = giving("one", {"result": "success"})
    workflow = create_workflow(id="w").then(one)
    workflow.map({"test": {"init_data": True, "path": "cool"}, "test2": {"fn": greet}})
    two = create_step(
        id="two",
        execute=lambda ctx: {"result": ctx.input_data["test"], "second": ctx.input_data["test2"]},
    )
    workflow.then(two).map(
        {
            "result": {"step": two, "path": "result"},
            "second": {"fn": lambda ctx: ctx.get_step_result(one)["result"]},
        }
    )
    await register(workflow)
    result = await run(workflow, {"cool": "test-input"})
    assert result.raw_result == {"result": "test-input", "second": "success"}
    assert result.steps["two"].output == {"result": "test-input", "second": "Hello success"}


async def test_a_path_through_something_that_is_no_object_fails_the_run_naming_it(register) -> None:
    workflow = (
        create_workflow(id="w").then(giving("one", {"n": 1})).map({"x": {"step": "one", "path": "n.m"}})
    )
    await register(workflow)
    result = await run(workflow)
    assert (result.status, result.error.message) == ("failed", "Invalid path n.m in step one")


async def test_maps_are_steps_with_ids_records_and_async_functions(register) -> None:
    async def greeting(ctx: StepContext[Any]) -> str:
        return f"Hello {ctx.input_data['name']}"

    workflow = (
        create_workflow(id="w").map({"text": {"fn": greeting}}, id="greet").map(lambda ctx: ctx.input_data)
    )
    await register(workflow)
    result = await run(workflow, {"name": "Ada"})
    assert list(result.steps) == ["greet", "mapping_w_1"]
    assert result.raw_result == {"text": "Hello Ada"}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("", ""),
        ("literal only", "literal only"),
        ("${inputData.a}${inputData.b} $5", "AB $5"),
        ("a=${inputData.none}|", "a=|"),
        ("${inputData.list.0.name}\n${inputData.flag}", "first\ntrue"),
        ("${inputData.object}", '{"k": 1}'),
        ("${initData.a} ${state.phase} ${requestContext.user} ${stepResults.early.x}", "A busy ada deep"),
        ("x" * 1200 + "${inputData.a}", "x" * 1200 + "A"),
    ],
)
async def test_templates_fill_in_values_as_text(register, template: str, text: str) -> None:
    data = {"a": "A", "b": "B", "none": None, "list": [{"name": "first"}], "flag": True, "object": {"k": 1}}
    workflow = create_workflow(id="w").then(giving("early", {"x": "deep"})).map({**_all_of(data)})
    workflow.map({"text": {"template": template}})
    await register(workflow)
    result = await run(workflow, data, initial_state={"phase": "busy"}, request_context={"user": "ada"})
    assert result.raw_result == {"text": text}


def _all_of(data: dict[str, Any]) -> dict[str, Any]:
    return {key: {"init_data": True, "path": key} for key in data}


async def test_a_template_that_names_a_step_which_did_not_run_fails_the_run(register) -> None:
    workflow = create_workflow(id="w").map({"x": {"template": "${stepResults.nonexistent.y}"}})
    await register(workflow)
    result = await run(workflow)
    assert result.status == "failed"
    assert "stepResults.nonexistent" in result.error.message


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ({"x": {}}, "needs one of"),
        ({"x": {"template": "${ inputData.x }"}}, "whitespace-padded"),
        ({"x": {"template": "a${}b"}}, "empty or whitespace-padded"),
        ({"x": {"template": "${nope.x}"}}, 'unknown namespace "nope"'),
        ({"x": {"template": "${stepResults.}"}}, "stepResults.<stepId>"),
        ("text", "function of the context"),
    ],
)
def test_a_mapping_that_cannot_work_is_refused_when_it_is_defined(source: Any, says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        create_workflow(id="w").map(source)


def test_a_template_may_name_a_whole_step() -> None:
    create_workflow(id="w").map({"x": {"template": "${stepResults.stepA}"}})


class Inner(BaseModel):
    value: int = 1


class Outer(BaseModel):
    required: str
    nested: Inner = Inner()


async def test_defaults_of_schemas_are_filled_in(register) -> None:
    workflow = create_workflow(id="w", input_schema=Outer).then(
        create_step(id="typed", input_schema=Outer, output_schema=Outer, execute=lambda ctx: ctx.input_data)
    )
    await register(workflow)
    result = await run(workflow, {"required": "x"})
    assert result.raw_result == result.steps["typed"].payload == {"required": "x", "nested": {"value": 1}}


async def test_a_later_step_gets_the_defaults_of_its_schema_and_only_what_the_schema_has(register) -> None:
    class Later(BaseModel):
        value1: str
        status: str = "default-value"

    later = create_step(
        id="later", input_schema=Later, execute=lambda ctx: f"{ctx.input_data.status}-{ctx.input_data.value1}"
    )
    workflow = (
        create_workflow(id="w").then(giving("one", {"value1": "x", "value2": 2, "value3": 3})).then(later)
    )
    await register(workflow)
    result = await run(workflow)
    assert result.raw_result == "default-value-x"


async def test_a_wrong_input_names_each_place_and_starts_nothing(register) -> None:
    workflow = create_workflow(id="w", input_schema=Outer).then(same)
    await register(workflow)
    with pytest.raises(ValidationError, match=r"Invalid input data: \n- nested.value: .*integer") as refused:
        await run(workflow, {"required": "x", "nested": {"value": "many"}})
    assert refused.value.__cause__.issues == [  # type: ignore[union-attr]
        {"field": "nested.value", "message": refused.value.issues[0].message}
    ]


async def test_a_wrong_state_or_request_context_is_refused_too(register) -> None:
    workflow = create_workflow(id="w", state_schema=Inner, request_context_schema=Outer).then(same)
    await register(workflow)
    with pytest.raises(ValidationError, match=r"Invalid initial state: \n- value"):
        await run(workflow, initial_state={"value": "x"}, request_context={"required": "r"})
    with pytest.raises(ValidationError, match=r"Invalid request context: \n- required"):
        await run(workflow)
    assert (await run(workflow, request_context={"required": "r"})).state == {"value": 1}


async def test_without_validate_inputs_data_passes_as_it_is(register) -> None:
    inner = create_workflow(id="inner", input_schema=Inner).then(same).commit()
    workflow = create_workflow(id="w", input_schema=Outer, validate_inputs=False).then(inner)
    await register(workflow)
    assert (await run(workflow, {"value": "no number"})).raw_result == {"value": "no number"}


async def test_a_step_checks_the_request_context_it_needs(register) -> None:
    needing = create_step(id="needing", request_context_schema=Outer, execute=lambda ctx: "ran")
    workflow = create_workflow(id="w").then(needing)
    await register(workflow)
    result = await run(workflow)
    assert "Step request context validation failed: \n- required" in result.error.message
    assert (await run(workflow, request_context={"required": "r"})).raw_result == "ran"


async def test_a_nested_workflow_checks_its_input_and_fills_in_defaults(register) -> None:
    inner = create_workflow(id="inner", input_schema=Outer).then(same).commit()
    workflow = create_workflow(id="w").then(inner)
    await register(workflow)
    assert (await run(workflow, {"required": "x"})).raw_result == {"required": "x", "nested": {"value": 1}}
    result = await run(workflow, {"required": 7})
    assert "Step input validation failed: \n- required" in result.error.message
    assert (result.status, result.steps["inner"].status) == ("failed", "failed")


def test_ids_that_would_look_like_paths_are_refused() -> None:
    with pytest.raises(DefinitionError, match=r"'a/b' .*must not have any of"):
        create_step(id="a/b", execute=lambda ctx: None)
    with pytest.raises(DefinitionError, match=r"'w\[0\]' .*must not have any of"):
        create_workflow(id="w[0]")
