"""The Python client against a served app: what a run says in its process, it says over HTTP."""

from __future__ import annotations

import asyncio

import pytest

from flowctl import App, MemoryStorage, StepContext, create_step, create_workflow
from flowctl.client import Client, ServerUnreachableError, SyncClient
from flowctl.errors import NotFoundError, NotSuspendedError, ValidationError
from tests.server.conftest import Counter, increment, make_app


@pytest.fixture
async def client(serve_app):
    async with Client(await serve_app(make_app())) as client:
        yield client


async def test_workflows_tell_their_schemas(client) -> None:
    listed = await client.list_workflows()
    assert list(listed) == ["counter", "talk", "slow"]
    shown = await client.get_workflow("counter")
    assert shown == listed["counter"]
    assert shown.input_schema["properties"]["value"]["type"] == "integer"


async def test_a_run_is_started_read_listed_and_deleted(client) -> None:
    result = await client.start("counter", Counter(value=5), resource_id="ada")
    assert (result.status, result.result, result.steps["increment"].output) == (
        "success", {"value": 10}, {"value": 10},
    )  # fmt: skip
    stored = await client.get_run("counter", result.run_id)
    assert (stored.status, stored.resource_id, stored.snapshot.result) == ("success", "ada", {"value": 10})
    listed = await client.list_runs("counter", status="success", resource_id="ada")
    assert (listed.total, listed.runs[0].run_id) == (1, result.run_id)
    await client.delete_run("counter", result.run_id)
    assert (await client.list_runs("counter")).total == 0


async def test_a_stream_gives_events_and_observing_gives_them_again(client) -> None:
    events = [event async for event in client.stream("counter", {"value": 9})]
    assert [event.type for event in events] == [
        "workflow-start", "workflow-step-start", "workflow-step-result", "workflow-finish",
    ]  # fmt: skip
    assert [event async for event in client.observe("counter", events[0].run_id)] == events


async def test_a_run_goes_on_step_by_step(serve_app) -> None:
    walk = create_workflow(id="walk", input_schema=Counter, output_schema=Counter)
    for id in ("first", "second", "third"):
        walk.then(create_step(id=id, input_schema=Counter, output_schema=Counter, execute=increment))
    async with Client(await serve_app(App(workflows=[walk], storage=MemoryStorage()))) as client:
        begun = await client.start("walk", {"value": 1}, per_step=True)
        gone_on = await client.resume("walk", begun.run_id, per_step=True)
        ended = await client.resume("walk", begun.run_id)
    assert [(run.status, list(run.steps)) for run in (begun, gone_on)] == [
        ("paused", ["first"]), ("paused", ["first", "second"]),
    ]  # fmt: skip
    assert ended.result == {"value": 4}


async def test_a_suspended_run_goes_on_and_travels_back(client) -> None:
    asked = await client.start("talk", {"value": 1})
    assert (asked.status, asked.suspended, asked.suspend_payload) == (
        "suspended", [["ask"]], {"ask": {"ask": "how much?"}},
    )  # fmt: skip
    resumed = await client.resume("talk", asked.run_id, step="ask", resume_data={"add": 4})
    assert resumed.result == {"value": 5}
    again = await client.time_travel(
        "talk", asked.run_id, "ask", input_data={"value": 7}, resume_data={"add": 1}
    )
    assert again.result == {"value": 8}


async def greet(ctx: StepContext) -> dict[str, object]:
    return {**ctx.request_context, "input": ctx.input_data}


async def test_a_travel_brings_a_request_context_and_records_of_nested_workflows(serve_app) -> None:
    inner = create_workflow(id="inner").then(create_step(id="first", execute=greet))
    inner.then(create_step(id="second", execute=greet)).commit()
    outer = create_workflow(id="outer").then(inner).commit()
    async with Client(await serve_app(App(workflows=[outer], storage=MemoryStorage()))) as client:
        begun = await client.start("outer", 1, request_context={"user": "ada", "tone": "kind"})
        travelled = await client.time_travel(
            "outer",
            begun.run_id,
            "inner.second",
            nested_steps_context={"inner": {"first": {"status": "success", "output": 5}}},
            request_context={"user": "bob"},
        )
    assert travelled.result == {"user": "bob", "tone": "kind", "input": 5}


async def test_a_run_begun_without_waiting_is_canceled(client) -> None:
    run_id = await client.start_async("slow", {"value": 1})
    await client.cancel("slow", run_id)
    assert (await client.get_run("slow", run_id)).status == "canceled"


async def test_refusals_are_the_errors_that_a_run_raises(client) -> None:
    with pytest.raises(ValidationError) as refused:
        await client.start("counter", {"value": "x"})
    assert [issue.path for issue in refused.value.issues] == ["value"]
    with pytest.raises(NotFoundError, match="nope"):
        await client.get_workflow("nope")
    done = await client.start("counter", {"value": 9})
    with pytest.raises(NotSuspendedError):
        await client.resume("counter", done.run_id, step="increment", resume_data={})


async def test_without_a_server_the_error_names_the_url() -> None:
    async with Client("http://127.0.0.1:1") as client:
        with pytest.raises(ServerUnreachableError, match=r"http://127\.0\.0\.1:1"):
            await client.list_workflows()


async def test_the_sync_client_has_the_same_verbs(serve_app) -> None:
    url = await serve_app(make_app())

    def use() -> tuple[object, list[str]]:
        with SyncClient(url) as client:
            result = client.start("counter", {"value": 9})
            return result.result, [event.type for event in client.observe("counter", result.run_id)]

    result, types = await asyncio.to_thread(use)
    assert (result, types[-1]) == ({"value": 10}, "workflow-finish")


def test_the_sync_client_lacks_no_verb() -> None:
    verbs = {name for name in vars(Client) if not name.startswith("_")} - {"close"}
    assert verbs - set(vars(SyncClient)) == set()


def test_the_sync_client_outside_of_a_block_says_how_to_use_it() -> None:
    with pytest.raises(RuntimeError, match="with SyncClient"):
        SyncClient("http://127.0.0.1:1").list_workflows()
