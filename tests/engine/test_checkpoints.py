"""Checkpoints of steps while a request goes on, as SDKs that run many steps in one request send them."""

from __future__ import annotations

from typing import Any

import pytest
from plain_app import Asked, ended, plain_app, ran
from starlette.responses import JSONResponse, Response


@pytest.fixture
async def app():
    async with plain_app() as app:
        yield app


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


@pytest.mark.parametrize(
    "steps", ["x", 5, [5], [None], [{}], [{"op": "DeferAdd"}], [{**ran("a"), "metadata": 5}]]
)
async def test_steps_that_are_none_are_refused_and_nothing_is_kept(app, steps: Any):
    refused = []

    async def handler(asked: Asked) -> Response:
        refused.append((await asked.checkpoint(steps=steps)).status_code)
        return ended(len(asked.steps))

    assert (await app.run(handler))["output"] == 0
    assert refused == [400]
