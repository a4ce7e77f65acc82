"""The two workflows that everybody writes first: a counter, and one that asks a person."""

from __future__ import annotations

from pydantic import BaseModel

from flowctl import StepContext, create_step, create_workflow


class Counter(BaseModel):
    value: int


async def add_one(ctx: StepContext[Counter]) -> dict[str, int]:
    return {"value": ctx.input_data.value + 1}


async def test_a_counter_counts_to_ten(register) -> None:
    increment = create_step(id="increment", input_schema=Counter, output_schema=Counter, execute=add_one)
    workflow = create_workflow(id="increment-workflow", input_schema=Counter, output_schema=Counter).dountil(
        increment, lambda ctx: ctx.input_data.value >= 10
    )
    workflow.commit()
    await register(workflow)
    run = await workflow.create_run()
    result = await run.start(input_data={"value": 5})
    assert (result.status, result.result) == ("success", Counter(value=10))
    assert result.steps["increment"].output == {"value": 10}
    assert result.steps["increment"].metadata == {"iterationCount": 5}


async def test_a_counter_that_counts_once_adds_one(register) -> None:
    increment = create_step(id="increment", input_schema=Counter, output_schema=Counter, execute=add_one)
    workflow = create_workflow(id="increment-workflow", input_schema=Counter, output_schema=Counter)
    workflow = workflow.then(increment)
    workflow.commit()
    await register(workflow)
    assert (await (await workflow.create_run()).start(input_data={"value": 5})).result == Counter(value=6)


class Suggestions(BaseModel):
    suggestions: list[str]
    vacation_description: str


class Selection(BaseModel):
    selection: str


class Nothing(BaseModel):
    pass


class Chosen(BaseModel):
    selection: str
    vacation_description: str


async def choose(ctx: StepContext[Suggestions, Selection]) -> dict[str, str]:
    if not (ctx.resume_data and ctx.resume_data.selection):
        await ctx.suspend({})
        return {"selection": "", "vacation_description": ctx.input_data.vacation_description}
    return {
        "selection": ctx.resume_data.selection,
        "vacation_description": ctx.input_data.vacation_description,
    }


human_input = create_step(
    id="human-input",
    input_schema=Suggestions,
    resume_schema=Selection,
    suspend_schema=Nothing,
    output_schema=Chosen,
    execute=choose,
)
GIVEN = {"suggestions": ["Rome", "Oslo"], "vacation_description": "a week of museums"}


async def test_a_person_is_asked_and_the_first_suspended_step_goes_on(register) -> None:
    workflow = create_workflow(id="vacation", input_schema=Suggestions).then(human_input).commit()
    await register(workflow)
    run = await workflow.create_run()
    result = await run.start(input_data=GIVEN)
    assert (result.status, result.suspended) == ("suspended", [["human-input"]])
    resumed = await run.resume(step=result.suspended[0], resume_data={"selection": "Rome"})
    chosen = {"selection": "Rome", "vacation_description": "a week of museums"}
    assert (resumed.status, resumed.raw_result) == ("success", chosen)


async def test_a_person_is_asked_in_a_nested_workflow_and_answers_by_its_path(register) -> None:
    nested = create_workflow(id="nested-workflow", input_schema=Suggestions).then(human_input).commit()
    workflow = create_workflow(id="vacation", input_schema=Suggestions).then(nested).commit()
    await register(workflow)
    for path in ([nested, human_input], ["nested-workflow", "human-input"]):
        run = await workflow.create_run()
        assert (await run.start(input_data=GIVEN)).suspended == [["nested-workflow", "human-input"]]
        resumed = await run.resume(step=path, resume_data={"selection": "Oslo"})
        assert resumed.raw_result["selection"] == "Oslo"
