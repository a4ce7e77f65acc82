"""The JavaScript SDK on the engine, with checkpoints (its default) and without."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio
import websockets
from engine_world import until

from flowctl.engine import Engine, EngineConfig
from tests.node_program import node_program

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass
class Js:
    """An engine, and a Node program whose functions run on it."""

    engine_url: str
    app_url: str
    http: httpx.AsyncClient

    async def send(self, name: str, **data: Any) -> str:
        """Post an event; its id."""
        answer = await self.http.post(f"{self.engine_url}/e/test", json={"name": name, "data": data})
        return answer.json()["ids"][0]

    async def runs(self, event_id: str) -> list[dict[str, Any]]:
        return (await self.http.get(f"{self.engine_url}/v1/events/{event_id}/runs")).json()["data"]

    async def ended(self, event_id: str) -> tuple[str, Any]:
        """Status and output of the event's run, when it has ended."""

        async def check() -> Any:
            runs = await self.runs(event_id)
            return runs[0] if runs and runs[0]["ended_at"] else None

        run = await until(check, f"the end of the run of event {event_id}")
        return run["status"], run["output"]

    async def result(self, name: str, **data: Any) -> tuple[str, Any]:
        return await self.ended(await self.send(f"js/{name}", **data))

    async def waiting(self, event_id: str, kind: str) -> str:
        """The id of the event's run, when it waits for a timer of a kind."""

        async def check() -> Any:
            runs = await self.runs(event_id)
            path = f"/v1/runs/{runs[0]['run_id']}/jobs" if runs else ""
            jobs = (await self.http.get(self.engine_url + path)).json()["data"] if path else []
            return runs[0]["run_id"] if any(job["kind"] == kind for job in jobs) else None

        return await until(check, f"a {kind} of the run of event {event_id}")


@contextlib.asynccontextmanager
async def served(program: str, **env: str) -> AsyncIterator[Js]:
    """An engine, and a program that is synced with it."""
    async with (
        httpx.AsyncClient(timeout=30) as http,
        Engine(EngineConfig(port=0)) as engine,
        node_program(program, {"ENGINE": engine.url, **env}) as app,
    ):
        synced = await http.put(f"{app.url}/api/inngest")
        assert synced.status_code == 200, synced.text
        yield Js(engine.url, app.url, http)


@pytest_asyncio.fixture(
    scope="module", loop_scope="module", params=["yes", "no"], ids=["checkpoints", "no-checkpoints"]
)
async def js(request) -> AsyncIterator[Js]:
    async with served("inngest_app.mjs", CHECKPOINTING=request.param) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def v3() -> AsyncIterator[Js]:
    async with served("inngest_v3_app.mjs") as made:
        yield made


@pytest.mark.parametrize(
    ("name", "data", "output"),
    [
        ("steps", {"x": 1}, {"sum": 3}),
        ("retries", {}, 3),
        ("catches", {}, {"name": "TypeError", "message": "no"}),
        ("parallel", {}, ["a", "b", "c"]),
        ("parent", {}, 42),
        ("races", {}, "quick"),
        ("grows", {}, [2_000_000] * 3),
    ],
)
async def test_a_function_comes_to_its_result(js, name, data, output):
    assert await js.result(name, **data) == ("Completed", output)


async def test_events_of_a_batch_come_together(js):
    for n in range(3):
        id = await js.send("js/batches", n=n)
    assert await js.ended(id) == ("Completed", [0, 1, 2])


async def test_a_debounced_function_runs_once_with_the_last_event(js):
    ids = [await js.send("js/debounces", n=n) for n in range(3)]
    assert await js.ended(ids[2]) == ("Completed", 2)
    assert [await js.runs(id) for id in ids[:2]] == [[], []]


async def test_a_singleton_skips_a_second_run_and_a_throttle_holds_one_back(js):
    single = [await js.send("js/singles", k="a") for _ in range(2)]
    assert [len(await js.runs(id)) for id in single] == [1, 0]
    first, second = [await js.send("js/throttles", k="a") for _ in range(2)]
    assert await js.ended(first) == ("Completed", "ran")
    assert (await js.runs(second))[0]["status"] == "Scheduled"


async def test_a_run_that_takes_longer_than_its_timeout_is_cancelled(js):
    assert (await js.result("expires"))[0] == "Cancelled"


async def test_a_deferred_function_runs_once_its_run_has_ended(js):
    key = js.app_url
    assert await js.result("defers", key=key) == ("Completed", "deferred")

    async def told():
        answer = await js.http.get(f"{js.engine_url}/v1/events?name=js/deferred")
        return [event["data"] for event in answer.json()["data"]]

    assert await until(told, "what the deferred function sends") == [{"key": key}]


async def test_what_is_not_to_be_retried_fails_at_once(js):
    status, output = await js.result("fails")
    assert (status, output["message"]) == ("Failed", "attempt 1")


async def test_a_failure_handler_hears_of_it(js):
    status, _ = await js.result("handled")
    assert status == "Failed"

    async def told():
        answer = await js.http.get(f"{js.engine_url}/v1/events?name=js/told")
        return answer.json()["data"]

    assert (await until(told))[0]["data"] == {"message": "broken"}


async def test_a_wait_takes_the_event_that_fits_which_another_function_sends(js):
    id = await js.send("js/waits", key="k")
    await js.waiting(id, "timeout")
    await js.send("js/go", key="other", word="wrong")
    assert await js.result("sends", key="k") == ("Completed", 1)
    assert await js.ended(id) == ("Completed", "sent")


async def test_a_wait_that_lasts_too_long_gives_nothing(js):
    assert await js.result("waits", key="none", timeout="20ms") == ("Completed", "nothing")


async def test_an_event_cancels_the_run_that_it_matches(js):
    ids = [await js.send("js/cancels", key=key) for key in ("a", "b")]
    runs = [await js.waiting(id, "sleep") for id in ids]
    await js.send("js/stop", key="a")
    assert (await js.ended(ids[0]))[0] == "Cancelled"
    assert (await js.runs(ids[1]))[0]["status"] == "Running"
    await js.http.delete(f"{js.engine_url}/v1/runs/{runs[1]}")


async def test_a_signal_goes_from_one_run_to_another(js):
    id = await js.send("js/signals", signal="s")
    await js.waiting(id, "timeout")
    await js.result("signaller", signal="s", data={"x": 1})
    assert await js.ended(id) == ("Completed", {"x": 1})


async def test_a_fetch_is_made_by_the_engine(js):
    status, output = await js.result("fetches", url=f"{js.app_url}/ping")
    assert (status, output) == ("Completed", {"status": 202, "text": "pong ping"})


async def test_what_functions_publish_reaches_a_subscriber(js):
    messages = (await js.http.get(f"{js.app_url}/heard/room")).json()
    assert messages == [{"topic": "news", "kind": "data", "data": {"n": n}} for n in (1, 2)]


async def test_a_stream_that_the_sdk_publishes_comes_chunk_by_chunk(js):
    topics = [{"channel": "flow", "name": "news", "kind": "run"}]
    answer = await js.http.post(f"{js.engine_url}/v1/realtime/token", json=topics)
    url = js.engine_url.replace("http", "ws", 1) + f"/v1/realtime/connect?token={answer.json()['jwt']}"
    async with websockets.connect(url) as socket:
        await js.http.post(f"{js.app_url}/stream/flow")
        messages = [json.loads(await asyncio.wait_for(socket.recv(), 10))]
        while messages[-1]["kind"] != "datastream-end":
            messages.append(json.loads(await asyncio.wait_for(socket.recv(), 10)))
    assert "".join(m["data"] for m in messages if m["kind"] == "chunk") == "one two"


@pytest.mark.parametrize(
    ("name", "data", "output"),
    [
        ("steps", {"x": 1}, {"sum": 3}),
        ("retries", {}, 3),
        ("catches", {}, {"name": "TypeError", "message": "no"}),
        ("parallel", {}, ["a", "b", "c"]),
        ("parent", {}, 42),
        ("meets", {}, "sent"),
    ],
)
async def test_a_function_of_version_three_comes_to_its_result_by_streams(v3, name, data, output):
    assert await v3.result(name, **data) == ("Completed", output)


async def test_an_event_cancels_the_run_of_version_three_that_it_matches(v3):
    mine, other = [await v3.send("js/cancels", key=key) for key in ("mine", "other")]
    for event_id in (mine, other):
        await v3.waiting(event_id, "sleep")
    await v3.send("js/stop", key="mine")
    assert (await v3.ended(mine))[0] == "Cancelled"
    assert (await v3.runs(other))[0]["status"] == "Running"
