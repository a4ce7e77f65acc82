from __future__ import annotations

from dataclasses import replace

import pytest

from flowctl.engine.protocol import duration_ms
from flowctl.engine.turn import (
    Call,
    Drop,
    Finish,
    Invoke,
    Memoize,
    Reply,
    Retry,
    Sleep,
    Wait,
    broken,
    effects_of,
    unreached,
)

FIRST = Call("step", attempt=0, max_attempts=3, now=1000)
STEP_ERROR = [{"op": "StepError", "id": "a", "error": {"name": "E", "message": "m"}}]


def test_a_step_error_is_retried_until_its_attempts_are_used_up():
    assert effects_of(Reply(206, {}, STEP_ERROR), FIRST) == [Retry(due=3000, attempt=1)]
    last = Call("step", attempt=2, max_attempts=3, now=1000)
    assert effects_of(Reply(206, {}, STEP_ERROR), last) == [
        Memoize("a", {"error": {"name": "E", "message": "m"}}, "a", attempt=2)
    ]


def test_the_time_between_tries_may_be_the_same_each_time():
    for attempt in range(3):
        call = replace(FIRST, attempt=attempt, max_attempts=9, backoff=(1500,))
        assert effects_of(Reply(500, {}, {}), call) == [Retry(due=2500, attempt=attempt + 1)]


def test_an_app_that_forbids_retries_ends_the_step_or_the_function():
    headers = {"x-inngest-no-retry": "true"}
    assert isinstance(effects_of(Reply(206, headers, STEP_ERROR), FIRST)[0], Memoize)
    assert effects_of(Reply(500, headers, {"name": "E"}), FIRST) == [Finish(True, {"name": "E"})]


def test_retry_after_is_seconds_or_a_date():
    for text, due in (("2", 3000), ("1970-01-01T00:00:07Z", 7000), ("Thu, 01 Jan 1970 00:00:09 GMT", 9000)):
        assert effects_of(Reply(500, {"retry-after": text}, {}), FIRST) == [Retry(due, 1)]


def test_retry_after_that_is_no_time_changes_nothing():
    for text in ("inf", "1e400", "nan", "soon"):
        assert effects_of(Reply(500, {"retry-after": text}, {}), FIRST) == effects_of(
            Reply(500, {}, {}), FIRST
        )


def test_a_worker_that_is_not_there_costs_no_attempt_and_one_that_died_does():
    assert unreached(FIRST, times=0) == Retry(1100, 0, was_sent=False)
    assert broken(FIRST) == Retry(1100, 1)


def test_a_lost_worker_is_asked_again_within_two_seconds_however_often_it_was_lost():
    assert unreached(FIRST, times=1000).due <= FIRST.now + 2000
    assert broken(replace(FIRST, attempt=50, max_attempts=99)).due <= FIRST.now + 2000


@pytest.mark.parametrize("op", [{"name": ""}, {"name": None, "opts": {"duration": ""}}])
def test_a_sleep_that_names_no_time_is_over_at_once(op):
    reply = Reply(206, {}, [{"op": "Sleep", "id": "s", **op}])
    assert effects_of(reply, FIRST) == [Sleep("s", FIRST.now, False, "s")]


@pytest.mark.parametrize(
    ("op", "name"),
    [
        ({"op": "Sleep", "name": "367d"}, "InngestErrTimeoutTooLong"),
        ({"op": "Sleep", "opts": {"duration": "2099-01-01T00:00:00Z"}}, "InngestErrTimeoutTooLong"),
        ({"op": "WaitForEvent", "name": "e", "opts": {"timeout": "9000h"}}, "InngestErrTimeoutTooLong"),
        ({"op": "WaitForEvent", "name": "e", "opts": {"timeout": "1h", "if": "1 +"}}, "InvalidExpression"),
    ],
)
def test_a_step_that_would_wait_for_ever_or_for_nothing_fails_its_run(op, name):
    (end,) = effects_of(Reply(206, {}, [{"id": "a", **op}]), FIRST)
    assert isinstance(end, Finish)
    assert (end.failed, end.output["name"]) == (True, name)


def test_a_wait_without_a_timeout_is_over_at_once_and_an_invocation_lasts_a_year():
    ops = [
        {"op": "WaitForEvent", "id": "w", "name": "e", "opts": {"timeout": ""}},
        {"op": "InvokeFunction", "id": "i", "name": "i", "opts": {"function_id": "f", "timeout": None}},
    ]
    wait, invoke = effects_of(Reply(206, {}, ops), FIRST)
    assert isinstance(wait, Wait)
    assert isinstance(invoke, Invoke)
    assert (wait.until, invoke.until) == (FIRST.now, FIRST.now + 365 * 86_400_000)


@pytest.mark.parametrize("opcodes", [[], [{"op": "None"}], [{"op": "None", "id": "a"}]])
def test_an_answer_that_says_nothing_is_asked_for_again(opcodes):
    assert effects_of(Reply(206, {}, opcodes), FIRST) == [Drop("step")]


@pytest.mark.parametrize(
    ("text", "ms"),
    [("1h2m3s", 3_723_000), ("1500us", 2), ("2500000ns", 2), ("1.5s", 1_500), ("2w", 1_209_600_000)],
)
def test_a_duration_may_have_any_unit_that_sdks_write(text: str, ms: int):
    assert duration_ms(text) == ms
