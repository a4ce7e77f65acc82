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
    assert shown["idempotencyKey"] == event_id
    stream = await ask(world, "{ stream(query: {limit: 9}) { id trigger runs { id } } }")
    assert [(item["id"], len(item["runs"])) for item in stream["data"]["stream"]] == [(event_id, 1)]


async def test_a_step_tells_at_which_try_it_ended(world):
    tries = []

    async def flaky():
        tries.append(1)
        if len(tries) < 3:
            raise inngest.RetryAfterError("again", 1)

    @world.function("flaky", retries=2)
    async def function(ctx: inngest.Context) -> None:
        await ctx.step.run("flaky", flaky)

    await world.start()
    run = await world.ended(await world.send("t/flaky"))
    query = "query($id: String!) { run(runID: $id) { trace { childrenSpans { name attempts } } } }"
    shown = (await ask(world, query, id=run["run_id"]))["data"]["run"]["trace"]["childrenSpans"]
    assert shown == [{"name": "flaky", "attempts": 2}]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"variables": [1]}, "variables"),
        ({"variables": "x"}, "variables"),
        ({"query": ["{ apps { id } }"]}, "query"),
        ({"query": None}, "query"),
        ({"operationName": 5}, "operationName"),
    ],
)
async def test_a_body_of_another_shape_is_refused_in_the_form_of_graphql(world, wrong, named):
    body = {"query": "{ apps { id } }"} | wrong
    answer = await world.http.post(f"{world.engine.url}/v0/gql", json=body)
    assert (answer.status_code, answer.json()["data"]) == (400, None)
    assert answer.json()["errors"][0]["message"].startswith(f"'{named}' must be ")


@pytest.mark.parametrize(
    ("query", "status"), [("{ apps", 422), ("{ nope }", 422), ('{ runTrace(runID: "x") { name } }', 200)]
)
async def test_a_query_that_cannot_begin_has_another_status_than_one_that_fails(world, query, status):
    answer = await world.http.post(f"{world.engine.url}/v0/gql", json={"query": query})
    assert (answer.status_code, bool(answer.json()["errors"])) == (status, True)


RUNS = """
    query($after: String, $by: RunsV2OrderByField!, $to: RunsOrderByDirection!, $filter: RunsFilterV2!) {
      runs(first: 2, after: $after, orderBy: [{field: $by, direction: $to}], filter: $filter) {
        edges { node { id appID status eventName } } totalCount
        pageInfo { hasNextPage hasPreviousPage endCursor }
      }
    }
"""
EVENTS = """
    query($after: String, $filter: EventsFilter!) {
      eventsV2(first: 2, after: $after, filter: $filter) {
        edges { node { id name runs { id } } } totalCount
        pageInfo { hasNextPage hasPreviousPage endCursor }
      }
    }
"""


async def pages(world, query: str, **variables):
    """All pages of a connection, each as its nodes' ids."""
    found, after = [], None
    while True:
        answer = await ask(world, query, after=after, **variables)
        (page,) = answer["data"].values()
        found.append([edge["node"]["id"] for edge in page["edges"]])
        assert page["pageInfo"]["hasPreviousPage"] == (after is not None)
        assert page["totalCount"] == variables.pop("total", page["totalCount"])
        if not page["pageInfo"]["hasNextPage"]:
            return found
        after = page["pageInfo"]["endCursor"]


@pytest.mark.parametrize("by", ["QUEUED_AT", "ENDED_AT"])
async def test_runs_are_given_page_by_page_in_either_order(world, ran, by):
    later = [(await world.ended(await world.send("t/f", {"i": i})))["run_id"] for i in range(4)]
    ids = [ran[1]["run_id"], *later]
    since = {"from": "2020-01-01T00:00:00Z"}
    rising = await pages(world, RUNS, by=by, to="ASC", filter=since)
    assert rising == [ids[:2], ids[2:4], ids[4:]]
    falling = await pages(world, RUNS, by=by, to="DESC", filter=since)
    assert [id for page in falling for id in page] == ids[::-1]


async def test_runs_are_found_by_status_function_app_and_time(world, ran):
    _, run = ran
    apps = (await ask(world, "{ apps { id } functions { id } }"))["data"]
    since = {"from": "2020-01-01T00:00:00Z"}
    fit = [{}, {"status": ["COMPLETED", "QUEUED"]}, {"appIDs": [apps["apps"][0]["id"]]}]
    unfit = [{"status": ["FAILED"]}, {"functionIDs": [apps["apps"][0]["id"]]}, {"until": since["from"]}]
    for filters, ids in ((fit, [run["run_id"]]), (unfit, [])):
        for more in filters:
            assert await pages(world, RUNS, by="QUEUED_AT", to="ASC", filter=since | more) == [ids]


async def test_runs_and_events_are_found_by_what_is_in_them(world):
    @world.function("f", retries=0)
    async def f(ctx: inngest.Context) -> dict[str, int]:
        if ctx.event.data["n"] == 0:
            raise ValueError("nothing to do")
        return {"twice": 2 * int(str(ctx.event.data["n"]))}

    await world.start()
    events = [await world.send("t/f", {"n": n}) for n in range(6)]
    runs = [(await world.ended(event))["run_id"] for event in events]
    since = {"from": "2020-01-01T00:00:00Z"}
    for query, found in (
        ("event.data.n > 2", [runs[3:5], runs[5:]]),
        ("event.data.n > 2\noutput.twice < 10", [runs[3:5]]),
        ("error.message.contains('nothing')", [runs[:1]]),
        ("event.name == 't/other'", [[]]),
    ):
        asked, total = since | {"query": query}, sum(map(len, found))
        assert await pages(world, RUNS, by="QUEUED_AT", to="ASC", filter=asked, total=total) == found
    assert await pages(world, EVENTS, filter=since | {"query": "event.data.n == 4"}) == [[events[4]]]


async def test_events_are_given_page_by_page_with_their_runs(world, ran):
    ids = [ran[0], *[await world.send(name) for name in ("t/x", "t/y")]]
    since = {"from": "2020-01-01T00:00:00Z"}
    assert await pages(world, EVENTS, filter=since) == [[ids[2], ids[1]], [ids[0]]]
    assert await pages(world, EVENTS, filter=since | {"eventNames": ["t/y"]}) == [[ids[2]]]
    named = since | {"includeInternalEvents": True, "eventNames": ["inngest/function.finished"]}
    (finished,) = await pages(world, EVENTS, filter=named)
    assert len(finished) == 1


async def test_a_page_that_cannot_be_is_refused_with_the_reason(world):
    since = {"from": "2020-01-01T00:00:00Z"}
    for more, words in (
        ({"after": "??"}, "'??' is no cursor"),
        ({"filter": {"from": "soon"}}, "The filter's time is none"),
        ({"filter": since | {"query": "event.data."}}, "'event.data.' is no valid expression"),
    ):
        answer = await ask(world, EVENTS, **{"filter": since, **more})
        assert words in answer["errors"][0]["message"]


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
