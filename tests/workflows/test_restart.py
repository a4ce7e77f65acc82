"""Restarting what a lost process left: snapshots in the form in which other tools write them."""

from __future__ import annotations

from typing import Any

import pytest

from flowctl import StepContext, create_step, create_workflow

pytestmark = pytest.mark.every_storage

ran: list[str] = []


def adding(id: str, amount: int) -> Any:
    async def add(ctx: StepContext[Any]) -> int:
        ran.append(id)
        return ctx.input_data + amount

    return create_step(id=id, execute=add)


def interrupted(context: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"status": "running", "value": {}, "context": context, "suspendedPaths": {}, **more}


async def test_arms_that_were_interrupted_run_again(register) -> None:
    ran.clear()
    workflow = create_workflow(id="w").parallel([adding("a", 1), adding("b", 2), adding("c", 3)])
    app = await register(workflow)
    running = {"status": "running", "payload": 5, "startedAt": 1}
    done = {"status": "success", "payload": 5, "output": 8, "startedAt": 1, "endedAt": 2}
    snapshot = interrupted({"input": 5, "a": running, "b": running, "c": done}, activePaths=[0, 0])
    await app.storage.save_snapshot("w", "r", snapshot)
    result = await (await workflow.create_run(run_id="r")).restart()
    assert (result.raw_result, sorted(ran)) == ({"a": 6, "b": 7, "c": 8}, ["a", "b"])


async def test_a_nested_workflow_goes_on_from_its_own_row(register) -> None:
    ran.clear()
    inner = create_workflow(id="inner").then(adding("two", 2)).then(adding("three", 3)).commit()
    workflow = create_workflow(id="w").then(adding("one", 1)).then(inner).then(adding("four", 4))
    app = await register(workflow)
    one = {"status": "success", "payload": 0, "output": 1}
    outer = interrupted(
        {"input": 0, "one": one, "inner": {"status": "running", "payload": 1}}, activePaths=[1]
    )
    two = {"status": "success", "payload": 1, "output": 3}
    within = interrupted(
        {"input": 1, "two": two, "three": {"status": "running", "payload": 3}}, activePaths=[1]
    )
    await app.storage.save_snapshot("w", "r", outer)
    await app.storage.save_snapshot("inner", "r", within)
    result = await (await workflow.create_run(run_id="r")).restart()
    assert (result.raw_result, ran) == (10, ["three", "four"])


async def test_a_restart_may_bring_values_of_the_request_context(register) -> None:
    async def greet(ctx: StepContext[Any]) -> dict[str, Any]:
        return dict(ctx.request_context.items())

    workflow = create_workflow(id="w").then(create_step(id="greet", execute=greet)).commit()
    app = await register(workflow)
    kept = {"user": "ada", "tone": "kind"}
    await app.storage.save_snapshot("w", "r", interrupted({"input": {}}, requestContext=kept))
    result = await (await workflow.create_run(run_id="r")).restart({"user": "bob"})
    assert result.raw_result == {"user": "bob", "tone": "kind"}
