"""The REST API, over HTTP, with the app served as users serve it."""

from __future__ import annotations

import json

import httpx
import pytest

from flowctl import App, StepContext, create_step, create_workflow


async def test_workflows_are_listed_by_id_with_schemas_and_graph(http) -> None:
    listed = (await http.get("/api/workflows")).json()
    assert list(listed) == ["counter", "talk", "slow"]
    assert json.loads(listed["counter"]["inputSchema"])["json"]["properties"]["value"] == {
        "title": "Value", "type": "integer",
    }  # fmt: skip
    assert [node["type"] for node in listed["counter"]["stepGraph"]] == ["loop"]
    assert (await http.get("/api/workflows/counter")).json() == listed["counter"]


async def test_start_async_answers_the_result(http) -> None:
    answer = await http.post("/api/workflows/counter/start-async", json={"inputData": {"value": 5}})
    result = answer.json()
    assert (answer.status_code, result["status"], result["result"]) == (200, "success", {"value": 10})
    stored = (await http.get(f"/api/workflows/counter/runs/{result['runId']}")).json()
    assert (stored["status"], stored["result"], list(stored["steps"])) == (
        "success", {"value": 10}, ["increment"],
    )  # fmt: skip
    runs = (await http.get("/api/workflows/counter/runs")).json()
    assert (runs["total"], runs["runs"][0]["runId"]) == (1, result["runId"])


@pytest.mark.parametrize(("accept", "separator"), [("*/*", "\x1e"), ("application/x-ndjson", "\n")])
async def test_stream_sends_events_one_by_one(http, accept: str, separator: str) -> None:
    run = (await http.post("/api/workflows/counter/create-run")).json()["runId"]
    answer = await http.post(
        f"/api/workflows/counter/stream?runId={run}",
        json={"inputData": {"value": 9}},
        headers={"accept": accept},
    )
    events = [json.loads(chunk) for chunk in answer.text.split(separator) if chunk]
    assert [event["type"] for event in events] == [
        "workflow-start", "workflow-step-start", "workflow-step-result", "workflow-finish",
    ]  # fmt: skip
    assert events[-1]["payload"]["workflowStatus"] == "success"


async def test_a_suspended_run_is_resumed_over_http(http) -> None:
    started = (await http.post("/api/workflows/talk/start-async", json={"inputData": {"value": 1}})).json()
    assert (started["status"], started["suspended"]) == ("suspended", [["ask"]])
    url = f"/api/workflows/talk/resume-async?runId={started['runId']}"
    resumed = await http.post(url, json={"step": "ask", "resumeData": {"add": 4}})
    assert resumed.json()["result"] == {"value": 5}
    again = await http.post(url, json={"step": "ask", "resumeData": {"add": 4}})
    assert (again.status_code, "not suspended" in again.json()["error"]) == (409, True)


async def test_input_that_does_not_fit_is_a_400_that_names_the_field(http) -> None:
    answer = await http.post("/api/workflows/counter/start-async", json={"inputData": {"value": "x"}})
    assert answer.status_code == 400
    assert [issue["field"] for issue in answer.json()["issues"]] == ["value"]


@pytest.mark.parametrize(
    "path", ["/api/workflows/nope", "/api/workflows/counter/runs/nope", "/api/nope", "/nope"]
)
async def test_what_is_not_there_is_a_404_in_json(http, path: str) -> None:
    answer = await http.get(path)
    assert answer.status_code == 404
    assert answer.json()["error"]


async def test_a_run_is_canceled_and_deleted_over_http(http) -> None:
    run = (await http.post("/api/workflows/talk/start-async", json={"inputData": {"value": 1}})).json()[
        "runId"
    ]
    assert (await http.post(f"/api/workflows/talk/runs/{run}/cancel")).status_code == 200
    assert (await http.get(f"/api/workflows/talk/runs/{run}")).json()["status"] == "canceled"
    assert (await http.delete(f"/api/workflows/talk/runs/{run}")).status_code == 200
    assert (await http.get(f"/api/workflows/talk/runs/{run}")).status_code == 404


async def test_a_run_travels_back_over_http(http) -> None:
    run = (await http.post("/api/workflows/talk/start-async", json={"inputData": {"value": 1}})).json()[
        "runId"
    ]
    url = f"/api/workflows/talk/time-travel-async?runId={run}"
    travelled = await http.post(
        url, json={"step": "ask", "inputData": {"value": 7}, "resumeData": {"add": 1}}
    )
    assert travelled.json()["result"] == {"value": 8}
    assert (await http.post(url, json={"step": "nope"})).status_code == 404


async def test_an_app_without_a_client_says_so_at_the_inngest_endpoint(http) -> None:
    answer = await http.put("/api/inngest")
    assert answer.status_code == 404
    assert "no Inngest client" in answer.json()["error"]


async def test_a_method_that_a_path_does_not_take_is_a_405_in_json(http) -> None:
    answer = await http.put("/api/workflows/counter/runs/x")
    assert (answer.status_code, answer.json()["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert {"GET", "DELETE"} <= set(answer.headers["allow"].split(", "))


async def test_bad_parameters_are_named_as_they_were_sent(http) -> None:
    answer = await http.get("/api/workflows/counter/runs?perPage=0&status=odd&fromDate=soon")
    assert (answer.status_code, answer.json()["error"].partition(":")[0]) == (400, "Invalid query parameters")
    assert [issue["field"] for issue in answer.json()["issues"]] == ["status", "fromDate", "perPage"]
    missing = await http.post("/api/workflows/counter/start", json={})
    assert [issue["field"] for issue in missing.json()["issues"]] == ["runId"]


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [(b"{", "application/json", 400), (b"[]", "application/json", 400), (b"a=1", "text/plain", 415)],
)
async def test_a_body_that_is_no_json_object_is_refused(http, body, kind, status) -> None:
    headers = {"content-type": kind}
    answer = await http.post("/api/workflows/counter/start-async", content=body, headers=headers)
    assert answer.status_code == status
    assert answer.json()["error"]


async def test_an_integer_that_records_cannot_keep_is_named(http) -> None:
    sent = {"inputData": {"value": 2**64}}
    answer = await http.post("/api/workflows/counter/start-async", json=sent)
    assert (answer.status_code, answer.json()["issues"][0]["field"]) == (400, "inputData.value")


async def test_start_validates_before_it_says_started(http) -> None:
    run = (await http.post("/api/workflows/counter/create-run")).json()["runId"]
    url = f"/api/workflows/counter/start?runId={run}"
    assert (await http.post(url, json={"inputData": {"value": "x"}})).status_code == 400
    assert (await http.get(f"/api/workflows/counter/runs/{run}")).json()["status"] == "pending"
    assert (await http.post(url, json={"inputData": {"value": 9}})).json() == {
        "message": "Workflow run started"
    }
    assert (await http.post(url, json={"inputData": {"value": 9}})).status_code == 409


async def test_runs_are_paged_by_offset_or_page(http) -> None:
    ids = [f"run-{n}" for n in range(5)]
    for id in ids:
        await http.post(f"/api/workflows/counter/create-run?runId={id}")

    async def listed(query: str) -> list[str]:
        return [
            run["runId"] for run in (await http.get(f"/api/workflows/counter/runs?{query}")).json()["runs"]
        ]

    newest = await listed("limit=false")
    assert sorted(newest) == ids
    assert await listed("offset=1&limit=2") == newest[1:3]
    assert await listed("page=1&perPage=2") == newest[2:4]


async def test_counts_tell_what_is_under_way(http) -> None:
    await http.post("/api/workflows/talk/start-async", json={"inputData": {"value": 1}})
    counts = (await http.get("/api/workflows/run-counts")).json()
    assert counts["talk"] == {"running": 0, "suspended": 1}


async def test_a_partial_list_has_no_steps(http) -> None:
    listed = (await http.get("/api/workflows?partial=true")).json()
    assert (listed["counter"]["steps"], listed["counter"]["stepCount"]) == ({}, 1)


async def test_restart_is_only_for_runs_that_were_interrupted(http) -> None:
    done = (await http.post("/api/workflows/counter/start-async", json={"inputData": {"value": 9}})).json()
    for action in ("restart", "restart-async"):
        answer = await http.post(f"/api/workflows/counter/{action}?runId={done['runId']}", json={})
        assert (answer.status_code, answer.json()["code"]) == (409, "NOT_ACTIVE")
    everything = await http.post("/api/workflows/counter/restart-all-active-workflow-runs")
    assert everything.status_code == 200


async def test_readiness_names_what_is_missing(http) -> None:
    assert (await http.get("/health")).json() == {"success": True}
    ready = await http.get("/health/ready")
    assert (ready.status_code, ready.json()["checks"]) == (200, {"storage": {"ok": True}})


async def test_one_run_shows_the_tracebacks_of_its_errors_and_lists_and_events_do_not(serve_app) -> None:
    async def fail(ctx: StepContext) -> None:
        raise LookupError("no such thing")

    step = create_step(id="fails", execute=fail)
    inner = create_workflow(id="inner").then(step).commit()
    url = await serve_app(App(workflows=[create_workflow(id="w").then(inner).commit()]))
    async with httpx.AsyncClient(base_url=f"{url}/api/workflows/w") as http:
        result = (await http.post("/start-async", json={})).json()
        run = (await http.get(f"/runs/{result['runId']}")).json()
        shown = [run["error"], run["steps"]["inner"]["error"], run["steps"]["inner.fails"]["error"]]
        assert [error["stack"] for error in shown] == [result["error"]["stack"]] * 3
        assert "in fail\n" in run["error"]["stack"]
        for path in ("/runs", f"/observe?runId={result['runId']}"):
            assert "Traceback" not in (await http.get(path)).text
