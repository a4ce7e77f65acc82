"""The GraphQL queries that SDKs' own tests ask of a dev server."""

from __future__ import annotations

import json

import inngest
import pytest


async def ask(world, query: str, **variables):
    body = {"query": query, "variables": variables}
    return (await world.http.post(f"{world.engine.url}/v0/gql", json=body)).json()


@pytest.fixture
async def ran(world):
    """An event and its run: one step that ends, one that fails and is caught."""

    async def seven():
        return 7

    async def fails():
        raise ValueError("broken")

    @world.function("f", retries=0)
    async def f(ctx: inngest.Context) -> object:
        await ctx.step.run("good", seven)
        try:
            await ctx.step.run("bad", fails)
        except inngest.StepError:
            return {"done": True}

    await world.start()
    event_id = await world.send("t/f", {"x": 1})
    run = await world.ended(event_id)
    assert run["status"] == "Completed", run["output"]
    return event_id, run


async def test_a_run_is_found_by_its_event_and_shows_its_steps_and_their_outputs(world, ran):
    event_id, run = ran
    query = (
        "query Q($id: ID!) { event(query: {eventId: $id}) { functionRuns { id status function { name } } } }"
    )
    found = (await ask(world, query, id=event_id))["data"]["event"]["functionRuns"]
    assert found == [{"id": run["run_id"], "status": "COMPLETED", "function": {"name": "f"}}]
    query = (
        "query($id: String!) { run(runID: $id) { output trace { childrenSpans { name status outputID } } } }"
    )
    shown = (await ask(world, query, id=run["run_id"]))["data"]["run"]
    spans = shown["trace"]["childrenSpans"]
    assert json.loads(shown["output"]) == {"done": True}
    assert [(s["name"], s["status"]) for s in spans] == [("good", "COMPLETED"), ("bad", "FAILED")]
    query = "query($id: String!) { runTraceSpanOutputByID(outputID: $id) { data error { message } } }"
    outputs = [(await ask(world, query, id=span["outputID"]))["data"] for span in spans]
    assert [o["runTraceSpanOutputByID"] for o in outputs] == [
        {"data": "7", "error": None},
        {"data": None, "error": {"message": "broken"}},
    ]


async def test_fragments_aliases_and_selections_work_as_graphql_has_them(world, ran):
    _, run = ran
    query = """
        fragment Names on RunTraceSpan { name stepType }
        query($id: String!) { mine: run(runID: $id) { trace(preview: true) { ...Names } } }
    """
    answer = await ask(world, query, id=run["run_id"])
    assert answer == {"data": {"mine": {"trace": {"name": "f", "stepType": "RUN"}}}}


async def test_events_are_shown_as_they_were_sent(world, ran):
    event_id, _ = ran
    query = "query($id: ULID!) { eventV2(id: $id) { name raw idempotencyKey } }"
    shown = (await ask(world, query, id=event_id))["data"]["eventV2"]
    assert (shown["name"], json.loads(shown["raw"])["data"]) == ("t/f", {"x": 1})
    assert shown["idempotencyKey"] is None
    stream = await ask(world, "{ stream(query: {limit: 9}) { id trigger runs { id } } }")
    assert [(item["id"], len(item["runs"])) for item in stream["data"]["stream"]] == [(event_id, 1)]


async def test_what_is_not_there_is_an_error_that_says_so(world):
    answer = await ask(world, 'query { runTrigger(runID: "nope") { payloads } }')
    assert answer["errors"][0]["message"] == "run not found: nope"
    answer = await ask(world, "{ nonsense }")
    assert "Cannot query field 'nonsense'" in answer["errors"][0]["message"]


async def test_mutations_invoke_and_cancel(world):
    @world.function("f")
    async def f(ctx: inngest.Context) -> None:
        await ctx.step.sleep("nap", 3_600_000)

    await world.start()
    await ask(world, 'mutation { invokeFunction(functionSlug: "t-f", data: {x: 1}) }')
    (run,) = await world.get("/v1/runs")
    answer = await ask(world, "mutation($id: ULID!) { cancelRun(runID: $id) { status } }", id=run["run_id"])
    assert answer["data"]["cancelRun"]["status"] == "CANCELLED"
