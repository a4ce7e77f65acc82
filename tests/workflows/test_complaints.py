"""What users of durable workflow engines complain about, and how it is here."""

from __future__ import annotations

import asyncio
from typing import Any

import inngest
import pytest

from flowctl import (
    App,
    MemoryStorage,
    NonRetriableError,
    NotSuspendedError,
    ValidationError,
    clone_workflow,
    create_workflow,
    init,
    serve,
)
from flowctl.engine import Engine, EngineConfig
from tests.runners.front import listening, on_engine
from tests.workflows.making import Ran, start

SECONDS = 30


async def until(holds: Any) -> Any:
    """What an async question answers once it answers something."""
    async with asyncio.timeout(SECONDS):
        while not (answer := await holds()):  # noqa: ASYNC110 - storage tells by asking
            await asyncio.sleep(0.01)
    return answer


async def test_conditions_and_dynamic_values_are_asked_once_however_often_a_run_is_replayed(register) -> None:
    asked = Ran()

    def noted(name: str, answer: Any) -> Any:
        def ask(ctx: Any) -> Any:
            asked.append(name)
            return answer(ctx) if callable(answer) else answer

        return ask

    workflow = create_workflow(id="w").branch([(noted("branch", True), asked.step("a"))])
    workflow.sleep(noted("sleep", 1)).map(noted("map", 1)).sleep(1)
    workflow.dountil(asked.step("b"), noted("loop", lambda ctx: ctx.iteration_count >= 2)).sleep(1)
    workflow.map(lambda ctx: [1]).foreach(asked.step("c"), concurrency=noted("limit", 1)).sleep(1)
    await register(workflow)
    assert (await start(workflow, 1)).status == "success"
    assert asked == ["branch", "a", "sleep", "map", "b", "loop", "b", "loop", "limit", "c"]


async def test_times_of_records_stay_as_they_were_when_the_run_is_replayed(register) -> None:
    seen = []

    async def look(ctx: Any) -> None:
        stored = await workflow.get_workflow_run_by_id(ctx.run_id)
        seen.append((stored.steps["a"].started_at, stored.steps["a"].ended_at))

    ran = Ran()
    workflow = create_workflow(id="w").then(ran.step("a")).sleep(2).then(ran.step("look", look)).sleep(2)
    await register(workflow)
    result = await start(workflow)
    assert seen == [(result.steps["a"].started_at, result.steps["a"].ended_at)]


def test_a_clone_runs_on_the_engine_of_its_original() -> None:
    client = inngest.Inngest(app_id="mine", is_production=False)
    original = init(client).create_workflow(id="w").then(Ran().step("a")).commit()
    clone = clone_workflow(original, id="clone")
    app = App(workflows=[original, clone], storage=MemoryStorage())
    assert (clone.client, app.engine_for(clone)) == (client, "inngest")
    assert {"workflow.w", "workflow.clone"} <= {function.local_id for function in app.inngest_functions()}


async def test_an_error_that_is_not_to_be_tried_again_is_not_in_a_nested_workflow_either(register) -> None:
    def refuse(ctx: Any) -> None:
        raise NonRetriableError("never")

    ran, retry = Ran(), {"attempts": 3, "delay": 0}
    inner = (
        create_workflow(id="inner", retry_config=retry).then(ran.step("refuse", refuse, retries=3)).commit()
    )
    workflow = create_workflow(id="w", retry_config=retry).then(inner)
    await register(workflow)
    result = await start(workflow)
    assert (result.status, result.error.name, ran) == ("failed", "NonRetriableError", ["refuse"])


async def test_items_that_end_in_another_order_keep_their_own_results(register) -> None:
    done = [asyncio.Event() for _ in range(4)]

    async def work(ctx: Any) -> str:
        if ctx.input_data < 2:  # each ends only after the next one has
            await asyncio.wait_for(done[ctx.input_data + 1].wait(), SECONDS)
        done[ctx.input_data].set()
        return f"item {ctx.input_data}"

    workflow = create_workflow(id="w").foreach(Ran().step("item", work), concurrency=3).sleep(1)
    await register(workflow)
    assert (await start(workflow, [0, 1, 2, 3])).raw_result == [f"item {n}" for n in range(4)]


async def test_the_event_of_a_resume_carries_no_results() -> None:
    async def ask(ctx: Any) -> Any:
        return ctx.resume_data or await ctx.suspend()

    ran = Ran()
    workflow = (
        create_workflow(id="w").then(ran.step("much", lambda ctx: "x" * 5000)).then(ran.step("ask", ask))
    )
    async with on_engine(workflows=[workflow.commit()]) as served:
        run = await served.app.get_workflow("w").create_run()
        assert (await run.start()).status == "suspended"
        assert (await run.resume(resume_data="yes")).raw_result == "yes"
        [resumed] = [event for event in served.front.events if event["name"] == "workflow.w.continue"]
        assert "xxxx" not in str(resumed)


async def test_a_nested_result_is_its_output_alone(register) -> None:
    ran = Ran()
    fill = ran.step("fill", lambda ctx: ctx.set_state({"big": "x" * 5000}) or "small")
    inner = create_workflow(id="inner").then(fill).commit()
    workflow = create_workflow(id="w").then(inner).then(ran.step("after"))
    await register(workflow)
    result = await start(workflow)
    assert (result.steps["inner"].output, result.steps["after"].payload) == ("small", "small")
    assert "xxxx" not in str(result.steps)


async def test_nested_workflows_in_parallel_really_overlap(register) -> None:
    meeting = asyncio.Barrier(2)

    async def meet(ctx: Any) -> None:
        await asyncio.wait_for(meeting.wait(), SECONDS)

    ran = Ran()
    arms = [create_workflow(id=id).then(ran.step(f"{id}-step", meet)).commit() for id in ("a", "b")]
    await register(workflow := create_workflow(id="w").parallel(arms))
    assert (await start(workflow)).status == "success"


async def test_one_nested_workflow_may_stand_in_several(register) -> None:
    inner = create_workflow(id="inner").then(Ran().step("a", lambda ctx: ctx.input_data + 1)).commit()
    one, two = (create_workflow(id=id).then(inner).commit() for id in ("one", "two"))
    outer = create_workflow(id="outer").then(one).then(two).then(inner)
    await register(outer, one, inner)
    assert (await start(outer, 0)).raw_result == 3
    assert (await start(inner, 0)).raw_result == 1


async def test_nested_steps_in_a_branch_are_shown(register) -> None:
    inner = create_workflow(id="inner").then(Ran().step("a")).commit()
    workflow = create_workflow(id="w").branch([(lambda ctx: True, inner)])
    await register(workflow)
    result = await start(workflow, 5)
    stored = await workflow.get_workflow_run_by_id(result.run_id)
    assert stored.steps["inner.a"].output == 5


async def test_what_nested_steps_write_reaches_the_stream_at_once(register) -> None:
    heard = asyncio.Event()

    async def write(ctx: Any) -> str:
        ctx.writer.write("token")
        await asyncio.wait_for(heard.wait(), SECONDS)  # the step ends only after its word was heard
        return "done"

    inner = create_workflow(id="inner").then(Ran().step("write", write)).commit()
    workflow = create_workflow(id="w").then(create_workflow(id="middle").then(inner).commit())
    await register(workflow)
    async for event in (stream := (await workflow.create_run()).stream()):
        if event.type == "workflow-step-output":
            assert (event.payload["output"], event.payload["stepName"]) == ("token", "middle.inner.write")
            heard.set()
    assert (await stream.result()).raw_result == "done"


async def test_an_engine_url_that_ends_with_a_slash_works() -> None:
    async with Engine(EngineConfig(port=0)) as engine:
        url = f"{engine.url}/"
        client = inngest.Inngest(
            app_id="slash", is_production=False, api_base_url=url, event_api_base_url=url
        )
        workflow = create_workflow(id="w").then(Ran().step("a")).sleep(1).commit()
        app = App(workflows=[workflow], inngest=client, storage=MemoryStorage())
        async with listening(serve(app)) as served:
            answer = await engine.transport.request("PUT", f"{served}/api/inngest", headers={})
            assert (answer.status, (await start(workflow, 4)).raw_result) == (200, 4)
            await app.stop()
        await client._http_client._http_client.aclose()


async def test_a_run_and_its_steps_are_seen_running(register) -> None:
    go_on = asyncio.Event()
    workflow = create_workflow(id="w").then(
        Ran().step("a", lambda ctx: asyncio.wait_for(go_on.wait(), SECONDS))
    )
    await register(workflow)
    run = await workflow.create_run()
    assert (await workflow.get_workflow_run_by_id(run.run_id)).status == "pending"
    await run.start_async()

    async def running() -> Any:
        stored = await workflow.get_workflow_run_by_id(run.run_id)
        return stored if "a" in stored.steps else None

    stored = await until(running)
    go_on.set()
    assert (stored.status, stored.steps["a"].status) == ("running", "running")
    assert (await run.observe_stream().result()).status == "success"


async def test_parallel_records_are_right_while_others_run(register) -> None:
    go_on, ran = asyncio.Event(), Ran()
    slow = ran.step("slow", lambda ctx: asyncio.wait_for(go_on.wait(), SECONDS))
    workflow = create_workflow(id="w").parallel([ran.step("quick"), slow])
    await register(workflow)
    run = await workflow.create_run()
    await run.start_async()

    async def both() -> Any:
        steps = (await workflow.get_workflow_run_by_id(run.run_id)).steps
        statuses = {id: record.status for id, record in steps.items()}
        return statuses if statuses == {"quick": "success", "slow": "running"} else None

    await until(both)
    go_on.set()
    result = await run.observe_stream().result()
    assert [record.status for record in result.steps.values()] == ["success", "success"]


async def test_a_branch_is_not_resumed_while_another_runs(register, monkeypatch) -> None:
    monkeypatch.setattr("flowctl.run.SETTLE_SECONDS", 0.05)
    go_on, ran = asyncio.Event(), Ran()

    async def ask(ctx: Any) -> Any:
        return ctx.resume_data or await ctx.suspend()

    slow = ran.step("slow", lambda ctx: asyncio.wait_for(go_on.wait(), SECONDS))
    workflow = create_workflow(id="w").parallel([ran.step("ask", ask), slow])
    await register(workflow)
    run = await workflow.create_run()
    async for event in run.stream():
        if event.type == "workflow-step-suspended":
            with pytest.raises(NotSuspendedError):
                await run.resume("ask", {"ok": True})
            go_on.set()
    result = await run.resume("ask", {"ok": True})
    assert (result.status, ran) == ("success", ["ask", "slow", "ask"])


async def test_concurrent_runs_share_nothing(register) -> None:
    async def item(ctx: Any) -> Any:
        ctx.set_state({"last": ctx.request_context["who"]})
        ctx.request_context.set(f"item-{ctx.input_data}", ctx.request_context["who"])
        await asyncio.sleep(0)
        return [ctx.request_context["who"], ctx.state.get("last", ctx.request_context["who"])]

    workflow = create_workflow(id="w").foreach(Ran().step("item", item), concurrency=3)
    workflow.map(lambda ctx: [ctx.input_data, dict(ctx.request_context)])
    await register(workflow)
    results = await asyncio.gather(
        *(start(workflow, [1, 2, 3], request_context={"who": f"run-{n}"}) for n in range(6))
    )
    for n, result in enumerate(results):
        items, context = result.raw_result
        assert (items, set(context.values())) == ([[f"run-{n}"] * 2] * 3, {f"run-{n}"})


async def test_a_stream_whose_start_is_refused_raises_and_ends(register) -> None:
    workflow = create_workflow(id="w", input_schema=int).then(Ran().step("a"))
    await register(workflow)
    run = await workflow.create_run()
    stream = run.stream("no number")
    with pytest.raises(ValidationError):
        async for _ in stream:
            pass
    with pytest.raises(ValidationError):
        await asyncio.wait_for(stream.result(), SECONDS)
    assert (await run.start(1)).status == "success"


async def test_a_long_run_is_started_and_looked_at_later(register) -> None:
    workflow = create_workflow(id="w").sleep(5).then(Ran().step("a"))
    await register(workflow)
    run_id = await (await workflow.create_run()).start_async(7)

    async def ended() -> Any:
        stored = await workflow.get_workflow_run_by_id(run_id)
        return stored if stored.status == "success" else None

    assert (await until(ended)).result == 7
