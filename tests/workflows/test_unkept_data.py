"""Data that no database and no engine keeps: refused where it comes up, naming the place."""

from __future__ import annotations

from typing import Any

import pytest

from flowctl import StepContext, create_step, create_workflow


async def run(register: Any, execute: Any, input_data: Any = None, **options: Any) -> Any:
    workflow = create_workflow(id="w").then(create_step(id="work", execute=execute, **options)).commit()
    await register(workflow)
    return await (await workflow.create_run()).start(input_data)


async def test_an_integer_beyond_64_bits_fails_the_step_that_gives_it_naming_the_place(register) -> None:
    async def work(ctx: StepContext[Any]) -> Any:
        return {"order": [{"total": 2**70}]}

    result = await run(register, work, output_schema=dict[str, Any])
    assert (result.status, result.error.name) == ("failed", "NotJSONError")
    assert "output of step 'work'" in result.error.message
    assert "order.0.total is an integer of 71 bits" in result.error.message


async def test_integers_of_64_bits_are_kept(register) -> None:
    async def work(ctx: StepContext[Any]) -> Any:
        return ctx.input_data

    given = [2**64 - 1, -(2**63)]
    assert (await run(register, work, given)).result == given


async def test_an_input_that_cannot_be_kept_is_refused_and_starts_nothing(register) -> None:
    async def work(ctx: StepContext[Any]) -> Any:
        raise AssertionError("the step is not reached")

    with pytest.raises(TypeError, match="total is an integer of 71 bits"):
        await run(register, work, {"total": -(2**70)})


async def test_a_text_with_half_a_character_is_told_too(register) -> None:
    async def work(ctx: StepContext[Any]) -> Any:
        ctx.set_state({"text": "\ud800"})

    result = await run(register, work)
    assert (result.status, result.error.name) == ("failed", "NotJSONError")
    assert "text is '\\ud800'" in result.error.message
