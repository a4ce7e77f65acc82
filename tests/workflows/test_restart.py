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


async def test_items_that_were_done_are_not_done_again(register) -> None:
    ran.clear()
    workflow = (
        create_workflow(id="w").foreach(adding("item", 10), concurrency=2).map(lambda c: sum(c.input_data))
    )
    app = await register(workflow)
    done = {"status": "success", "payload": 1, "output": 11}
    under_way = {"status": "running", "payload": 2}
    context = {"input": [1, 2, 3], "item": {"status": "running", "payload": [1, 2, 3]}}
    snapshot = interrupted(context | {"item[0]": done, "item[1]": under_way}, activePaths=[0])
    await app.storage.save_snapshot("w", "r", snapshot)
    result = await (await workflow.create_run(run_id="r")).restart()
    assert (result.raw_result, result.steps["item"].output, ran) == (36, [11, 12, 13], ["item", "item"])


async def test_a_foreach_of_which_no_item_is_known_begins_anew(register) -> None:
    ran.clear()
    workflow = create_workflow(id="w").foreach(adding("item", 10))
    app = await register(workflow)
    context = {"input": [1, 2], "item": {"status": "running", "payload": [1, 2]}}
    await app.storage.save_snapshot("w", "r", interrupted(context, activePaths=[0]))
    result = await (await workflow.create_run(run_id="r")).restart()
    assert (result.raw_result, ran) == ([11, 12], ["item", "item"])


async def test_a_loop_goes_on_in_the_iteration_that_was_interrupted(register) -> None:
    ran.clear()
    workflow = create_workflow(id="w").dountil(adding("loop", 1), lambda ctx: ctx.iteration_count >= 5)
    app = await register(workflow)
    third = {"status": "running", "payload": 2, "metadata": {"iterationCount": 3}}
    await app.storage.save_snapshot("w", "r", interrupted({"input": 0, "loop": third}, activePaths=[0]))
    result = await (await workflow.create_run(run_id="r")).restart()
    assert (result.raw_result, result.steps["loop"].metadata, len(ran)) == (5, {"iterationCount": 5}, 3)


async def test_a_loop_that_was_interrupted_between_two_iterations_decides_again(register) -> None:
    ran.clear()
    workflow = create_workflow(id="w").dountil(adding("loop", 1), lambda ctx: ctx.input_data >= 3)
    app = await register(workflow)
    second = {"status": "success", "payload": 1, "output": 2, "metadata": {"iterationCount": 2}}
    await app.storage.save_snapshot("w", "r", interrupted({"input": 0, "loop": second}, activePaths=[0]))
    result = await (await workflow.create_run(run_id="r")).restart()
    assert (result.raw_result, len(ran)) == (3, 1)


async def test_the_branch_that_was_taken_is_gone_on_with(register) -> None:
    ran.clear()
    arms = [(lambda ctx: True, adding("a", 1)), (lambda ctx: True, adding("b", 2))]
    workflow = create_workflow(id="w").then(adding("one", 1)).branch(arms).map({"b": {"step": "b"}})
    app = await register(workflow)
    done = {"status": "success", "payload": 1, "output": 2}
    context = {"input": 0, "one": {"status": "success", "payload": 0, "output": 1}, "a": done}
    snapshot = interrupted(context | {"b": {"status": "running", "payload": 1}}, activePaths=[1, 1])
    await app.storage.save_snapshot("w", "r", snapshot)
    result = await (await workflow.create_run(run_id="r")).restart()
    assert (result.raw_result, result.steps["a"].output, ran) == ({"b": 3}, 2, ["b"])
    assert "one" not in ran


async def test_a_run_that_was_waiting_goes_on_with_its_sleep(register) -> None:
    ran.clear()
    workflow = create_workflow(id="w").sleep(1, id="nap").then(adding("after", 1))
    app = await register(workflow)
    waiting = {"status": "waiting", "payload": 1, "startedAt": 1}
    snapshot = interrupted({"input": 1, "nap": waiting}, activePaths=[0]) | {"status": "waiting"}
    await app.storage.save_snapshot("w", "r", snapshot)
    result = await (await workflow.create_run(run_id="r")).restart()
    assert (result.raw_result, result.steps["nap"].status, ran) == (2, "success", ["after"])


async def test_a_suspended_nested_workflow_is_resumed_from_its_own_row(register) -> None:
    async def ask(ctx: StepContext[Any]) -> Any:
        return ctx.input_data + ctx.resume_data if ctx.resume_data else await ctx.suspend()

    ran.clear()
    inner = create_workflow(id="inner").then(adding("two", 2)).then(create_step(id="ask", execute=ask))
    workflow = create_workflow(id="w").then(inner.commit()).then(adding("four", 4))
    app = await register(workflow)
    asked = {"status": "suspended", "payload": 0, "suspendPayload": {"__workflow_meta": {"path": ["ask"]}}}
    outer = {"status": "suspended", "context": {"input": 0, "inner": asked}, "suspendedPaths": {"inner": [0]}}
    two = {"status": "success", "payload": 0, "output": 2}
    waits = {"status": "suspended", "payload": 2, "suspendPayload": {}, "suspendedAt": 1}
    within = {"status": "suspended", "context": {"input": 0, "two": two, "ask": waits}}
    await app.storage.save_snapshot("w", "r", outer)
    await app.storage.save_snapshot("inner", "r", within)
    result = await (await workflow.create_run(run_id="r")).resume(step=["inner", "ask"], resume_data=10)
    assert (result.raw_result, ran) == (16, ["four"])


async def test_a_sleep_that_ended_before_the_process_was_lost_is_not_slept_again(register) -> None:
    ran.clear()
    workflow = (
        create_workflow(id="w").then(adding("one", 1)).sleep(3_600_000, id="nap").then(adding("two", 2))
    )
    app = await register(workflow)
    one = {"status": "success", "payload": 0, "output": 1}
    nap = {"status": "success", "payload": 1, "output": 1, "metadata": {"until": 1}}
    await app.storage.save_snapshot(
        "w", "r", interrupted({"input": 0, "one": one, "nap": nap}, activePaths=[1])
    )
    result = await (await workflow.create_run(run_id="r")).restart()
    assert (result.raw_result, ran, result.steps["nap"].status) == (3, ["two"], "success")
