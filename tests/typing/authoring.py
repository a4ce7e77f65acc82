"""What the type checker infers of workflows; checked by pyright, never run."""

from __future__ import annotations

from typing import Any, assert_type

from pydantic import BaseModel

from flowctl import App, RunResult, Step, StepContext, Workflow, create_step, create_workflow, step


class Counter(BaseModel):
    value: int


class Answer(BaseModel):
    approved: bool


async def add_one(ctx: StepContext[Counter]) -> Counter:
    assert_type(ctx.input_data, Counter)
    assert_type(ctx.run_id, str)
    return Counter(value=ctx.input_data.value + 1)


async def ask(ctx: StepContext[Counter, Answer]) -> bool:
    if ctx.resume_data is None:
        await ctx.suspend()
    assert_type(ctx.resume_data, Answer)
    return ctx.resume_data.approved


@step(retries=2)
async def double(data: Counter) -> Counter:
    return Counter(value=data.value * 2)


increment = create_step(id="increment", input_schema=Counter, output_schema=Counter, execute=add_one)
assert_type(increment, Step[Counter, Counter])
assert_type(double, Step[Counter, Counter])

workflow = create_workflow(id="w", input_schema=Counter, output_schema=Counter).then(increment)
workflow.dountil(double, lambda ctx: ctx.iteration_count > 2).commit()
assert_type(workflow, Workflow[Counter, Counter])

app = App(workflows=[workflow])
assert_type(app.get_workflow("w"), Workflow[Any, Any])


async def main() -> None:
    run = await workflow.create_run()
    assert_type(await run.start({"value": 1}), RunResult[Counter])
