"""The types of steps, however they are made; checked by pyright, never run."""

from __future__ import annotations

from typing import Any, TypedDict, assert_type

from pydantic import BaseModel

from flowctl import Step, StepContext, clone_step, create_step, step


class In(BaseModel):
    a: int


class Out(BaseModel):
    b: str


class Typed(TypedDict):
    c: int


@step
async def data_alone(data: In) -> Out:
    return Out(b=str(data.a))


@step
async def data_and_context(data: In, ctx: StepContext) -> Out:
    return Out(b=ctx.run_id)


@step
async def context_alone(ctx: StepContext[In]) -> Out:
    return Out(b=str(ctx.input_data.a))


@step
def plain(data: In) -> Out:
    return Out(b=str(data.a))


@step
def plain_with_context(data: In, ctx: StepContext) -> Out:
    return Out(b=ctx.run_id)


@step
def plain_of_context(ctx: StepContext[In]) -> Out:
    return Out(b=ctx.run_id)


@step(id="renamed", retries=2, description="Says it.", metadata={"owner": "me"}, resume_schema=Out)
async def with_options(data: In, ctx: StepContext[In, Out]) -> Typed:
    return {"c": data.a}


@step(retries=1)
def plain_with_options(data: list[int]) -> dict[str, int]:
    return {"sum": sum(data)}


assert_type(data_alone, Step[In, Out])
assert_type(data_and_context, Step[In, Out])
assert_type(context_alone, Step[In, Out])
assert_type(plain, Step[In, Out])
assert_type(plain_with_context, Step[In, Out])
assert_type(plain_of_context, Step[In, Out])
assert_type(with_options, Step[In, Typed])
assert_type(plain_with_options, Step[list[int], dict[str, int]])


async def to_out(ctx: StepContext[In]) -> Out:
    return Out(b=str(ctx.input_data.a))


async def to_dict(ctx: StepContext[In]) -> dict[str, Any]:
    return {"b": str(ctx.input_data.a)}


def at_once(ctx: StepContext[In]) -> Out:
    return Out(b=str(ctx.input_data.a))


made = create_step(id="made", input_schema=In, output_schema=Out, execute=to_out)
assert_type(made, Step[In, Out])
assert_type(create_step(id="dict", input_schema=In, output_schema=Out, execute=to_dict), Step[In, Out])
assert_type(create_step(id="plain", input_schema=In, output_schema=Out, execute=at_once), Step[In, Out])
assert_type(clone_step(made, id="copy"), Step[In, Out])
assert_type(clone_step(plain_with_options, id="copy"), Step[list[int], dict[str, int]])
assert_type(made.id, str)
assert_type(made.description, str | None)
assert_type(made.retries, int | None)
