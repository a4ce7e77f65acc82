"""What steps that run at the same time make of one state."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from flowctl import StepContext, create_step, create_workflow


@pytest.mark.parametrize("order", ["ab", "ba"])
async def test_of_arms_that_change_the_same_key_the_last_to_end_wins_also_after_a_replay(
    register, order
) -> None:
    ended = {id: asyncio.Event() for id in order}

    def arm(id: str) -> Any:
        async def change(ctx: StepContext[Any]) -> str:
            if order.index(id):
                await ended[order[0]].wait()
            ctx.set_state({"by": id, id: True})
            ctx.request_context.set("by", id)
            return id

        return create_step(id=id, execute=change)

    def after(id: str) -> Any:
        async def tell(ctx: StepContext[Any]) -> None:
            ended[id].set()

        return create_workflow(id=f"arm-{id}").then(arm(id)).then(create_step(id="tell", execute=tell))

    async def look(ctx: StepContext[Any]) -> Any:
        return [ctx.state["by"], ctx.request_context.get("by")]

    workflow = create_workflow(id="w").parallel([after("a").commit(), after("b").commit()]).sleep(1)
    await register(workflow.then(create_step(id="look", execute=look)).commit())
    result = await (await workflow.create_run()).start(input_data=None)
    assert result.result == [order[1], order[1]]
    assert result.state == {"by": order[1], "a": True, "b": True}
