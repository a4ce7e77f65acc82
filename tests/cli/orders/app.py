"""A project for the tests of the command line: it asks people, loops, retries, fails, waits."""

import asyncio
from typing import Any, Literal

import inngest
from pydantic import BaseModel, Field

from flowctl import App, StepContext, create_step, create_workflow, init, step


class Order(BaseModel):
    item: str = Field(description="What is ordered")
    amount: int = Field(1, ge=1)
    size: Literal["small", "large"] = "small"


class Decision(BaseModel):
    approved: bool


async def ask(ctx: StepContext[Order, Decision]) -> dict[str, Any]:
    if ctx.resume_data is None:
        await ctx.suspend({"question": f"May {ctx.input_data.item} be ordered?"})
    return {"approved": ctx.resume_data.approved}


approve = create_step(id="approve", input_schema=Order, resume_schema=Decision, execute=ask)
review = create_workflow(id="review", input_schema=Order).then(approve).commit()
order = create_workflow(id="order", description="Order something", input_schema=Order).then(review).commit()


@step
async def numbers(data: Any) -> list[int]:
    print("printed by a step")
    return [1, 2, 3]


@step
async def square(data: int) -> int:
    return data * data


@step
async def total(data: list[int]) -> int:
    return sum(data)


squares = create_workflow(id="squares").then(numbers).foreach(square).then(total).commit()


@step
async def boom(data: Any) -> None:
    prices: dict[str, int] = {}
    prices["tea"] += 1


broken = create_workflow(id="broken").then(boom).commit()


@step
async def wait_for_ever(data: Any) -> None:
    await asyncio.Event().wait()


endless = create_workflow(id="endless").then(wait_for_ever).commit()

tries: list[int] = []


@step(retries=3)
async def flaky(data: Any) -> int:
    tries.append(1)
    if len(tries) < 3:
        raise ConnectionError("the upstream is down")
    return len(tries)


retried = create_workflow(id="retried").then(flaky).commit()

client = inngest.Inngest(app_id="orders")


@client.create_function(fn_id="greet", trigger=inngest.TriggerEvent(event="user/came"), retries=0)
async def greet(ctx: inngest.Context) -> str:
    return f"Hello, {ctx.event.data['name']}!"


@step
async def double(data: int) -> int:
    return data * 2


doubled = init(client).create_workflow(id="doubled", input_schema=int).then(double).commit()

app = App(workflows=[order, squares, broken, endless, retried, doubled], functions=[greet])
