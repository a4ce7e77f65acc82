"""A run's events on its realtime channel: all, in order, in as few requests as the engine takes."""

from __future__ import annotations

from itertools import chain
from typing import Any

from flowctl import StepContext, create_step, create_workflow
from flowctl.runners import publisher
from tests.runners.front import Served, on_engine


async def passed(ctx: StepContext[Any]) -> Any:
    return ctx.input_data


def three_steps() -> Any:
    steps = [create_step(id=id, execute=passed) for id in "abc"]
    return create_workflow(id="w").then(steps[0]).then(steps[1]).then(steps[2]).commit()


async def published(served: Served) -> list[str]:
    """What a run's events are, once all are out."""
    served.front.messages.clear()
    assert (await served.start("w", 1)).result == 1
    await served.app.stop()
    return [message["type"] for message in chain(*served.front.messages)]


async def test_an_engine_that_takes_several_messages_at_once_gets_them_together():
    async with on_engine(workflows=[three_steps()]) as served:
        types = await published(served)
        assert types.count("workflow-step-result") == 3
        assert (types[0], types[-1]) == ("workflow-start", "workflow-finish")
        assert len(served.front.messages) < len(types) / 2


async def test_an_engine_that_does_not_say_so_gets_them_one_by_one():
    async with on_engine(workflows=[three_steps()]) as served:
        together = await published(served)
    async with on_engine(workflows=[three_steps()]) as served:
        served.front.takes_lines = False
        assert await published(served) == together
        assert {len(messages) for messages in served.front.messages} == {1}


async def test_a_request_holds_no_more_messages_than_the_engine_may_take(monkeypatch):
    monkeypatch.setattr(publisher, "BATCH_BYTES", 1)
    async with on_engine(workflows=[three_steps()]) as served:
        types = await published(served)
        assert len(served.front.messages) == len(types)
