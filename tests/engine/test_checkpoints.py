"""Checkpoints of steps while a request goes on, as SDKs that run many steps in one request send them."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import orjson
import pytest
from engine_world import served, until
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from flowctl.engine import Engine, EngineConfig

Handler = Callable[["Asked"], Awaitable[Response]]


class Asked:
    """One request of the engine, and the checkpoints that an SDK would send while it answers."""

    def __init__(self, engine_url: str, http: httpx.AsyncClient, request: Request, body: Any) -> None:
        self.url, self.http, self.headers, self.body = engine_url, http, request.headers, body
        self.ctx, self.steps = body["ctx"], body["steps"]

    async def checkpoint(self, *steps: dict[str, Any], **other: Any) -> httpx.Response:
        body = {
            "run_id": self.ctx["run_id"],
            "fn_id": self.ctx["fn_id"],
            "qi_id": self.ctx["qi_id"],
            "request_id": self.headers["x-request-id"],
            "generation_id": int(self.headers["x-inngest-generation-id"]),
            "steps": steps,
        } | other
        url = f"{self.url}/v1/checkpoint/{self.ctx['run_id']}/async"
        return await self.http.post(url, content=orjson.dumps(body))


def ran(id: str, data: Any = None) -> dict[str, Any]:
    return {"op": "StepRun", "id": id, "displayName": id, "data": data}


def ended(data: Any = None) -> Response:
    return JSONResponse([{"op": "RunComplete", "id": "complete", "data": data}], 206)


class Fixture:
    """An engine and an app that speaks the protocol by hand."""

    def __init__(self, engine: Engine, http: httpx.AsyncClient, listener: socket.socket) -> None:
        self.engine, self.http, self.asked = engine, http, list[Asked]()
        self.listener, self.handler = listener, Handler

    async def call(self, request: Request) -> Response:
        asked = Asked(self.engine.url, self.http, request, orjson.loads(await request.body()))
        self.asked.append(asked)
        return await self.handler(asked)

    async def run(self, handler: Handler, *, retries: int = 3) -> dict[str, Any]:
        """Begin a run that `handler` answers; its end."""
        await self.begin(handler, retries=retries)
        return await self.ended()

    async def begin(self, handler: Handler, *, retries: int = 3) -> None:
        self.handler = handler
        url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/fn?fnId=c-f&stepId=step"
        step = {"id": "step", "name": "step", "runtime": {"type": "http", "url": url}}
        step["retries"] = {"attempts": retries}
        function = {"id": "c-f", "name": "f", "triggers": [{"event": "c/f"}], "steps": {"step": step}}
        body = {"appName": "c", "url": url, "functions": [function]}
        (await self.http.post(f"{self.engine.url}/fn/register", json=body)).raise_for_status()
        answer = await self.http.post(f"{self.engine.url}/e/k", json={"name": "c/f"})
        self.event_id = answer.json()["ids"][0]

    async def ended(self) -> dict[str, Any]:
        async def check() -> Any:
            answer = await self.http.get(f"{self.engine.url}/v1/events/{self.event_id}/runs")
            return next((run for run in answer.json()["data"] if run["ended_at"]), None)

        return await until(check, "the end of the run")


@pytest.fixture
async def app() -> AsyncIterator[Fixture]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    async with contextlib.AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx.AsyncClient(timeout=10))
        engine = await stack.enter_async_context(Engine(EngineConfig(port=0)))
        made = Fixture(engine, http, listener)
        asgi = Starlette(routes=[Route("/fn", made.call, methods=["POST"])])
        await stack.enter_async_context(served(asgi, listener))
        yield made
    listener.close()


async def test_many_steps_run_in_one_request(app):
    async def handler(asked: Asked) -> Response:
        for id in "abc":
            assert (await asked.checkpoint(ran(id, id))).status_code == 200
        return ended("done")

    run = await app.run(handler)
    assert (run["status"], run["output"], len(app.asked)) == ("Completed", "done", 1)
    stored = await app.http.get(f"{app.engine.url}/v0/runs/{run['run_id']}/actions")
    assert stored.json() == {id: {"data": id} for id in "abc"}


async def test_a_request_carries_what_a_checkpoint_must_name(app):
    async def handler(asked: Asked) -> Response:
        return ended()

    await app.run(handler)
    ctx, headers = app.asked[0].ctx, app.asked[0].headers
    assert ctx["fn_id"]
    assert ctx["qi_id"]
    assert ctx["request_id"] == headers["x-request-id"]
    assert str(ctx["generation_id"]) == headers["x-inngest-generation-id"] == "1"
    assert ctx["job_id"] == headers["x-inngest-job-id"]
    assert ctx["stack"] == {"stack": [], "current": 0}


async def test_checkpointed_steps_are_given_to_the_next_request(app):
    async def handler(asked: Asked) -> Response:
        if "slept" in asked.steps:
            return ended(list(asked.steps))
        await asked.checkpoint(ran("a"), ran("b"))
        return JSONResponse([{"op": "Sleep", "id": "slept", "name": "1ms"}], 206)

    assert (await app.run(handler))["output"] == ["a", "b", "slept"]
    assert app.asked[1].ctx["stack"]["stack"] == ["a", "b", "slept"]


async def test_a_request_that_was_given_up_learns_that_it_is_stale(app):
    answers = []

    async def handler(asked: Asked) -> Response:
        if len(app.asked) == 1:
            return JSONResponse({"name": "E"}, 500, headers={"retry-after": "0"})
        old = app.asked[0]
        answers.append(await old.checkpoint(ran("a")))
        answers.append(await old.checkpoint(ran("a"), generation_id=None))
        answers.append(await asked.checkpoint(ran("a"), generation_id=None))
        return ended(sorted(asked.steps))

    await app.run(handler)
    assert [answer.status_code for answer in answers] == [409, 409, 200]
    assert answers[0].json() == {
        "error": "stale dispatch: dispatch generation 1 does not match queue item generation 2",
        "data": {"run_id": app.asked[0].ctx["run_id"]},
        "status": 409,
    }


async def test_a_run_that_was_cancelled_takes_no_more_steps(app):
    async def handler(asked: Asked) -> Response:
        await app.http.delete(f"{app.engine.url}/v1/runs/{asked.ctx['run_id']}")
        answer = await asked.checkpoint(ran("a"))
        return JSONResponse({"name": str(answer.status_code)}, 400)

    run = await app.run(handler)
    assert run["status"] == "Cancelled"
    stored = await app.http.get(f"{app.engine.url}/v0/runs/{run['run_id']}/actions")
    assert stored.json() == {}


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        ({"op": "Sleep", "id": "s", "name": "1s"}, "cannot checkpoint async steps"),
        ({"op": "RunComplete", "id": "s"}, "cannot checkpoint opcode: RunComplete"),
    ],
)
async def test_what_ends_a_request_is_no_checkpoint_and_nothing_of_it_is_kept(app, step, reason):
    answers = []

    async def handler(asked: Asked) -> Response:
        answers.append(await asked.checkpoint(ran("a"), step))
        return ended(sorted(asked.steps))

    await app.run(handler)
    assert (answers[0].status_code, answers[0].json()["error"]) == (400, reason)
    stored = await app.http.get(f"{app.engine.url}/v0/runs/{app.asked[0].ctx['run_id']}/actions")
    assert stored.json() == {}


async def test_a_step_that_is_too_large_is_refused(app):
    answers = []

    async def handler(asked: Asked) -> Response:
        answers.append(await asked.checkpoint(ran("a"), ran("b", "x" * 5 * 2**20)))
        return ended()

    await app.run(handler)
    assert answers[0].status_code == 413


async def test_a_checkpoint_gives_a_job_its_attempts_back(app):
    async def handler(asked: Asked) -> Response:
        if asked.ctx["attempt"] == 0 and not asked.steps:
            return JSONResponse({"name": "E"}, 500, headers={"retry-after": "0"})
        if len(asked.steps) < 3:
            await asked.checkpoint(ran(f"s{len(asked.steps)}"))
            return JSONResponse({"name": "E"}, 500, headers={"retry-after": "0"})
        return ended("got there")

    assert (await app.run(handler, retries=1))["output"] == "got there"


async def test_a_run_with_too_many_steps_fails_and_says_so(app):
    async def handler(asked: Asked) -> Response:
        return JSONResponse([ran(str(number)) for number in range(1000)], 206)

    run = await app.run(handler)
    assert run["status"] == "Failed"
    assert run["output"]["name"] == "InngestErrFunctionOverflowed"
    assert run["output"]["message"] == "The function run exceeded the step limit of 1000 steps."


async def test_a_run_whose_step_is_too_large_fails_and_says_so(app):
    async def handler(asked: Asked) -> Response:
        return JSONResponse([ran("big", "x" * 5 * 2**20)], 206)

    run = await app.run(handler)
    assert (run["status"], run["output"]["name"]) == ("Failed", "InngestErrStepOutputTooLarge")


async def test_a_large_state_is_fetched_by_the_app(app):
    async def handler(asked: Asked) -> Response:
        if not asked.body["use_api"]:
            return JSONResponse([ran(f"s{len(asked.steps)}", "x" * 2 * 2**20)], 206)
        assert (asked.steps, asked.body["events"], asked.ctx["use_api"]) == ({}, [], True)
        url = f"{asked.url}/v0/runs/{asked.ctx['run_id']}"
        steps = (await asked.http.get(f"{url}/actions")).json()
        events = (await asked.http.get(f"{url}/batch")).json()
        return ended([*steps, *(event["name"] for event in events)])

    assert (await app.run(handler))["output"] == ["s0", "s1", "c/f"]


class Cut(Response):
    """An answer whose connection breaks in the middle."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"100")]
        await send({"type": "http.response.start", "status": 206, "headers": headers})
        await send({"type": "http.response.body", "body": b"[", "more_body": True})


async def test_steps_survive_a_worker_that_dies_in_the_middle(app):
    async def handler(asked: Asked) -> Response:
        if len(app.asked) == 1:
            await asked.checkpoint(ran("a", 1))
            return Cut()
        return ended(asked.steps)

    assert (await app.run(handler))["output"] == {"a": {"data": 1}}
