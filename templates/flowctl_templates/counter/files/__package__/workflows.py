"""Count to ten."""

from flowctl import StepContext, init
from pydantic import BaseModel

from __package__.client import client

flow = init(client)


class Counter(BaseModel):
    value: int


async def add_one(ctx: StepContext[Counter]) -> Counter:
    return Counter(value=ctx.input_data.value + 1)


increment = flow.create_step(
    id="increment", input_schema=Counter, output_schema=Counter, execute=add_one
)

increment_workflow = (
    flow.create_workflow(id="increment-workflow", input_schema=Counter, output_schema=Counter)
    .dountil(increment, lambda ctx: ctx.input_data.value >= 10)
    .commit()
)
