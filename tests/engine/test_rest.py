"""The REST API: lists with filters and cursors, runs, jobs, cancellations, apps."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import inngest
import pytest
from engine_world import until


@pytest.fixture
async def sleeping(world):
    """A function whose runs sleep for an hour."""

    @world.function("sleeper")
    async def sleeper(ctx: inngest.Context) -> None:
        await ctx.step.sleep("nap", 3_600_000)

    await world.start()
    return world


async def sleeps(world, event_id: str) -> str:
    async def check():
        runs = await world.runs(event_id)
        jobs = await world.get(f"/v1/runs/{runs[0]['run_id']}/jobs") if runs else []
        return runs[0]["run_id"] if [job["kind"] for job in jobs] == ["sleep"] else None

    return await until(check, "the sleep")


async def test_events_are_listed_newest_first_page_by_page(world):
    ids = [await world.send("page/event") for _ in range(5)]
    first = await world.get("/v1/events?limit=3")
    rest = await world.get(f"/v1/events?limit=3&cursor={first[-1]['internal_id']}")
    assert [event["internal_id"] for event in first + rest] == ids[::-1]


async def test_events_are_filtered_by_name_and_time(world):
    await world.send("a")
    id = await world.send("b")
    received = (await world.get(f"/v1/events/{id}"))["received_at"]
    assert [event["name"] for event in await world.get("/v1/events?name=b")] == ["b"]
    assert [event["name"] for event in await world.get(f"/v1/events?name=b&received_after={received}")] == [
        "b"
    ]
    assert await world.get("/v1/events?received_before=2001-01-01T00:00:00Z") == []


async def test_the_engines_own_events_come_only_by_their_name(sleeping):
    id = await sleeping.send("t/sleeper")
    await sleeping.http.delete(f"{sleeping.engine.url}/v1/runs/{await sleeps(sleeping, id)}")
    assert [event["name"] for event in await sleeping.get("/v1/events")] == ["t/sleeper"]
    assert len(await sleeping.get("/v1/events?name=inngest/function.cancelled")) == 1


@pytest.mark.parametrize("query", ["cursor=nope", "received_after=soon", "received_before=late"])
async def test_a_malformed_filter_is_named(world, query):
    answer = await world.http.get(f"{world.engine.url}/v1/events?{query}")
    assert answer.status_code == 400
    assert query.partition("=")[0] in answer.json()["error"]


async def test_runs_are_listed_by_function_and_status(sleeping):
    id = await sleeps(sleeping, await sleeping.send("t/sleeper"))
    await sleeps(sleeping, await sleeping.send("t/sleeper"))
    await sleeping.http.delete(f"{sleeping.engine.url}/v1/runs/{id}")
    assert [run["run_id"] for run in await sleeping.get("/v1/runs?status=cancelled")] == [id]
    assert len(await sleeping.get("/v1/runs?function=t-sleeper")) == 2
    assert await sleeping.get("/v1/runs?function=t-other") == []


async def test_a_status_that_runs_do_not_have_is_refused_with_those_they_have(world):
    answer = await world.http.get(f"{world.engine.url}/v1/runs?status=bogus")
    assert answer.status_code == 400
    assert answer.json()["error"] == (
        "Invalid status query parameter 'bogus': one of Scheduled, Running, Completed, Failed, Cancelled"
    )


@pytest.mark.parametrize(
    ("kind", "body", "answer"), [("json", b'{"resourceSpans": []}', b"{}"), ("x-protobuf", b"\n", b"")]
)
async def test_spans_of_extended_traces_are_taken(world, kind, body, answer):
    headers = {"content-type": f"application/{kind}"}
    taken = await world.http.post(f"{world.engine.url}/v1/traces/userland", content=body, headers=headers)
    assert (taken.status_code, taken.content, taken.headers["content-type"]) == (
        200,
        answer,
        headers["content-type"],
    )


@pytest.mark.parametrize(("size", "status"), [(1, 400), (8 * 2**20 + 1, 413)])
async def test_spans_that_are_none_or_too_many_are_refused(world, size, status):
    url, headers = f"{world.engine.url}/v1/traces/userland", {"content-type": "application/json"}
    assert (await world.http.post(url, content=b"{" * size, headers=headers)).status_code == status


@pytest.mark.parametrize(("path", "status"), [("nope", 400), ("01HZZZZZZZZZZZZZZZZZZZZZZZ", 404)])
async def test_only_a_known_run_is_cancelled_or_has_jobs(world, path, status):
    for method, more in (("DELETE", ""), ("GET", "/jobs")):
        answer = await world.http.request(method, f"{world.engine.url}/v1/runs/{path}{more}")
        assert (answer.status_code, answer.json()["status"]) == (status, status)


async def test_cancellations_are_listed_until_they_are_deleted(sleeping):
    url = f"{sleeping.engine.url}/v1/cancellations"
    wanted = {"app_id": "t", "function_id": "sleeper", "started_before": datetime.now(UTC).isoformat()}
    made = (await sleeping.http.post(url, json=wanted)).json()["data"]
    assert made["function_id"] == "t-sleeper"
    assert await sleeping.get("/v1/cancellations") == [made]
    deleted = [(await sleeping.http.delete(f"{url}/{made['id']}")).status_code for _ in range(2)]
    assert deleted == [200, 404]
    assert await sleeping.get("/v1/cancellations") == []


NOW = "2020-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("wrong", "status", "part"),
    [
        ({"app_id": ""}, 400, "app_id is required"),
        ({"started_before": "2999-01-01T00:00:00Z"}, 400, "must be in the past"),
        ({"started_before": "soon"}, 400, "started_before is no ISO time"),
        ({"started_after": "2021-01-01T00:00:00Z"}, 400, "started_after must be before"),
        ({"if": "event.data."}, 400, "invalid expression"),
        ({"function_id": "other"}, 404, "function not found"),
    ],
)
async def test_a_cancellation_that_cannot_be_is_refused_with_its_reason(sleeping, wrong, status, part):
    wanted = {"app_id": "t", "function_id": "sleeper", "started_before": NOW} | wrong
    answer = await sleeping.http.post(f"{sleeping.engine.url}/v1/cancellations", json=wanted)
    assert answer.status_code == status
    assert part in answer.json()["error"]


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ({"ts": 1}, "timestamp is before Jan 1, 1980"),
        ({"ts": 4_102_444_800_001}, "timestamp is after Jan 1, 2100"),
        ({"ts": "2024-01-01"}, "cannot unmarshal string into Go struct field raw.ts of type int64"),
        ({"ts": 1.5}, "cannot unmarshal number 1.5"),
        ({"ts": True}, "cannot unmarshal bool"),
        ({"v": 2}, "raw.v of type string"),
        ({"data": []}, "cannot unmarshal array"),
        ({"name": "inngest/function.failed"}, "reserved for internal use"),
        ({"data": {"x": json.loads("[" * 300 + "]" * 300)}}, "nested more than 200 levels deep"),
        ({"meta": {"sessions": {"a": ""}}}, "event session 'a'"),
    ],
)
async def test_an_event_that_cannot_be_is_refused_with_the_reason(world, event, reason):
    answer = await world.http.post(f"{world.engine.url}/e/k", json={"name": "t/x", **event})
    assert (answer.status_code, answer.json()["ids"]) == (400, [""])
    assert reason in answer.json()["error"]


async def test_the_functions_of_an_app_are_shown_as_a_dev_server_shows_them(sleeping):
    (function,) = (await sleeping.http.get(f"{sleeping.engine.url}/v1/apps/t/functions")).json()
    (known,) = (await sleeping.http.get(f"{sleeping.engine.url}/dev")).json()["functions"]
    assert function["config"] == known
    assert (function["id"], known["slug"]) == ("t-sleeper", "t-sleeper")
    assert known["steps"] == [{"id": "step", "name": "step", "uri": known["url"]}]


async def test_a_sender_cannot_write_what_is_reserved_in_an_events_data(world):
    id = await world.send("t/x", {"a": 1, "_inngest": {"correlation_id": "r.s"}})
    assert (await world.get(f"/v1/events/{id}"))["data"] == {"a": 1}
