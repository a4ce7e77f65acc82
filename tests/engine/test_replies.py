"""Answers of apps that are not as the protocol says: failed tries, and never a run that stays as it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from plain_app import Asked, ended, plain_app, ran
from starlette.responses import JSONResponse, Response

from flowctl.testing import TestClock

NO_SDK = {"x-inngest-sdk": ""}
SLEEP = {"op": "Sleep", "id": "s", "name": "1ms"}


@pytest.fixture
async def app():
    async with plain_app(TestClock()) as app:
        yield app


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ([None], "cannot be understood: 'NoneType' object"),
        ([{}], "an opcode has no 'op'"),
        ([{"op": "StepRun"}], "an opcode has no 'id'"),
        ([{"op": "Sleep", "id": "s", "name": "soon"}], "soon"),
        ([{"op": "WaitForEvent", "id": "w", "opts": "x"}], "cannot be understood"),
        ([{"op": "InvokeFunction", "id": "i", "opts": {"function_id": "f", "payload": "x"}}], "no object"),
        ([{"op": "StepError", "id": "e", "error": "x"}], "cannot be understood"),
        ([ran("a", json.loads("[" * 300 + "]" * 300))], "nested more than 200 levels deep"),
    ],
)
async def test_what_cannot_be_understood_is_tried_again_and_then_fails_the_run(app, answer: Any, says: str):
    async def handler(asked: Asked) -> Response:
        return JSONResponse(answer, 206)

    run = await app.run(handler, retries=2)
    assert (run["status"], len(app.asked)) == ("Failed", 3)
    assert says in run["output"]["message"]


async def test_a_step_that_invokes_with_data_that_is_no_object_fails(app):
    payload = {"function_id": "c-f", "payload": {"data": 5}}

    async def handler(asked: Asked) -> Response:
        if error := asked.steps.get("i"):
            return ended(error)
        return JSONResponse([{"op": "InvokeFunction", "id": "i", "opts": payload}], 206)

    run = await app.run(handler)
    assert "cannot unmarshal number" in run["output"]["error"]["message"]


@pytest.mark.parametrize("page", [b"<html>Please log in</html>", b'{"status": "up"}', b""])
async def test_success_is_no_result_when_no_sdk_says_so(app, page: bytes):
    async def handler(asked: Asked) -> Response:
        return Response(page, headers=NO_SDK) if len(app.asked) == 1 else ended("done")

    run = await app.run(handler, retries=2)
    assert (run["status"], run["output"], len(app.asked)) == ("Completed", "done", 2)


@pytest.mark.parametrize(
    ("streamed", "says"),
    [
        ({"error": "out of memory"}, "out of memory"),
        ({"body": "x"}, "needs a status"),
        ("x", "needs a status"),
        ({"status": 500, "body": {"name": "E", "message": "boom"}}, "boom"),
    ],
)
async def test_a_stream_that_tells_of_an_error_or_says_nothing_is_a_failed_try(app, streamed: Any, says: str):
    async def handler(asked: Asked) -> Response:
        return JSONResponse(streamed, 201)

    run = await app.run(handler, retries=1)
    assert (run["status"], len(app.asked)) == ("Failed", 2)
    assert says in run["output"]["message"]


async def test_what_a_stream_says_of_itself_counts_before_what_its_head_said(app):
    async def handler(asked: Asked) -> Response:
        inner = {"status": 400, "headers": {"X-Inngest-No-Retry": "true"}, "body": '{"message": "no"}'}
        return JSONResponse(inner, 201, headers={"x-inngest-no-retry": "false"})

    assert (await app.run(handler, retries=3))["output"] == {"message": "no"}
    assert len(app.asked) == 1


@pytest.mark.parametrize("query", ["fnId=c-f", "fnId=c-f&stepId=step&key=1", "stepId=step"])
async def test_the_step_that_is_called_is_named_in_the_url_however_the_app_registered_it(app, query: str):
    async def handler(asked: Asked) -> Response:
        if asked.target == "a":
            return JSONResponse([ran("a")], 206)
        return ended("done") if asked.steps else JSONResponse([{"op": "StepPlanned", "id": "a"}], 206)

    app.query = query
    assert (await app.run(handler))["output"] == "done"
    assert [asked.target for asked in app.asked] == ["step", "a", "step"]


@pytest.mark.parametrize("sent", [{"data": 7}, {"data": 7, "more": 1}, 7, None])
async def test_a_step_of_an_old_sdk_is_given_back_as_it_was_sent(app, sent: Any):
    async def handler(asked: Asked) -> Response:
        if asked.steps:
            return ended(asked.steps["a"])
        return JSONResponse([{**ran("a", sent), "op": "Step"}], 206)

    assert (await app.run(handler))["output"] == sent


@pytest.mark.parametrize("answer", [[], [{"op": "None"}], [{"op": "None", "id": "a"}]])
async def test_an_answer_that_asks_for_nothing_has_the_function_called_again(app, answer: Any):
    async def handler(asked: Asked) -> Response:
        return JSONResponse(answer, 206) if len(app.asked) == 1 else ended("done")

    assert (await app.run(handler))["status"] == "Completed"


@pytest.mark.parametrize("answer", [[ran("a")], [{"op": "StepPlanned", "id": "a"}], []])
async def test_a_planned_step_may_be_answered_in_any_way_and_the_run_goes_on(app, answer: Any):
    async def handler(asked: Asked) -> Response:
        if asked.target == "a":
            return JSONResponse(answer, 206)
        planned = len(app.asked) == 1
        return JSONResponse([{"op": "StepPlanned", "id": "a"}, SLEEP], 206) if planned else ended("done")

    assert (await app.run(handler))["status"] == "Completed"


@pytest.mark.parametrize("answer", [[ran("a")], [{**SLEEP, "id": "a"}], [{"op": "StepPlanned", "id": "a"}]])
async def test_an_app_that_names_ended_steps_for_ever_is_called_later_and_later_and_then_no_more(app, answer):
    async def handler(asked: Asked) -> Response:
        return JSONResponse(answer if asked.steps else [ran("a")], 206)

    run = await app.run(handler)
    assert (run["status"], len(app.asked) < 50) == ("Failed", True)
    assert "without a step ending" in run["output"]["message"]


async def test_a_step_that_no_request_finds_is_not_asked_for_for_ever(app):
    async def handler(asked: Asked) -> Response:
        return JSONResponse(
            [{"op": "StepNotFound" if asked.target == "a" else "StepPlanned", "id": "a"}], 206
        )

    assert "did not know" in (await app.run(handler))["output"]["message"]


async def test_many_steps_that_are_named_again_at_once_count_as_one_answer(app):
    async def handler(asked: Asked) -> Response:
        steps = [ran(str(number)) for number in range(100)]
        return JSONResponse(steps, 206) if len(app.asked) < 4 else ended(len(asked.steps))

    assert (await app.run(handler))["output"] == 100


async def test_retry_after_is_a_day_at_most(app):
    async def handler(asked: Asked) -> Response:
        late = {"retry-after": "99999999999"}
        return JSONResponse({"name": "E"}, 500, headers=late) if len(app.asked) == 1 else ended("done")

    assert (await app.run(handler))["status"] == "Completed"
    assert app.clock.elapsed.days == 1


async def test_a_step_may_have_any_id(app):
    id = 'a "b"\r\n\x00&c=d é'

    async def handler(asked: Asked) -> Response:
        if asked.target == id:
            return JSONResponse([ran(id, "data")], 206)
        return ended(asked.steps[id]["data"]) if asked.steps else planned()

    def planned() -> Response:
        return JSONResponse([{"op": "StepPlanned", "id": id}], 206)

    assert (await app.run(handler, retries=0))["output"] == "data"


@pytest.mark.parametrize("headers", [5, {"x-mine": "1\r\nx-other: 2"}])
async def test_a_fetch_that_cannot_be_made_fails_its_step(app, headers):
    async def handler(asked: Asked) -> Response:
        if asked.steps:
            return ended(asked.steps["f"]["error"]["name"])
        opts = {"url": f"{app.engine.url}/health", "headers": headers}
        return JSONResponse([{"op": "Gateway", "id": "f", "opts": opts}], 206)

    assert (await app.run(handler, retries=0))["output"] == "GatewayError"


@pytest.mark.parametrize("version", ["²", "--5", "9" * 5_000, "x"])
async def test_a_version_that_is_none_counts_as_that_of_the_first_sdks(app, version):
    async def handler(asked: Asked) -> Response:
        answer = ended("done") if asked.steps else JSONResponse([ran("a")], 206)
        answer.raw_headers.append((b"x-inngest-req-version", version.encode("latin-1")))
        return answer

    assert (await app.run(handler, retries=0))["output"] == "done"
    assert [asked.headers["x-inngest-req-version"] for asked in app.asked] == ["-1", "0"]


async def test_an_sdk_from_before_there_were_versions_is_called_at_each_parallel_steps_end(app):
    async def handler(asked: Asked) -> Response:
        opcodes = [{"op": "Sleep", "id": "s", "name": "20h"}, {"op": "StepPlanned", "id": "a"}]
        if asked.target == "a":
            opcodes = [{**ran("a", 7), "op": "Step"}]
        unnamed = {"x-inngest-req-version": ""}
        return ended(asked.steps["a"]) if asked.steps else JSONResponse(opcodes, 206, headers=unnamed)

    began = app.clock.now()
    assert (await app.run(handler))["output"] == 7
    assert app.clock.now() - began < 3_600_000


@pytest.mark.parametrize("error", [{"name": "E", "message": "boom", "stack": "at x"}, {"message": "boom"}])
async def test_an_error_that_an_old_sdk_encodes_twice_is_read(app, error: Any):
    async def handler(asked: Asked) -> Response:
        return JSONResponse(json.dumps(error), 400)

    assert (await app.run(handler))["output"] == error


async def test_an_error_that_is_a_text_is_its_message(app):
    async def handler(asked: Asked) -> Response:
        return JSONResponse("12 items are missing", 400)

    assert (await app.run(handler))["output"] == {"name": "Error", "message": "12 items are missing"}
