"""What an app may register: each fault is told by function, field and value; nothing is taken by halves."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowctl.engine.flow_control import FlowControl
from flowctl.engine.registration import RegistrationError, app_name

URL = "http://127.0.0.1:1/api/inngest"
OF_PYTHON = re.compile(r"None|True|False|<class|object at|Error\(|dict|instance|\bstr\b|tuple|Input should")


def function(id: str = "a-f", **config: Any) -> dict[str, Any]:
    steps = {"step": {"id": "step", "name": "step", "runtime": {"type": "http", "url": URL}}}
    return {"id": id, "name": id, "triggers": [{"event": "e"}], "steps": steps} | config


def registration(*functions: Any) -> dict[str, Any]:
    return {"appName": "a", "url": URL, "sdk": "inngest-py:v1", "functions": list(functions)}


def fault_of(*functions: Any) -> str | None:
    try:
        app_name(registration(*functions))
    except RegistrationError as err:
        return str(err)
    return None


def refusal(*functions: Any) -> RegistrationError:
    with pytest.raises(RegistrationError) as refused:
        app_name(registration(*functions))
    return refused.value


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        ({"concurrency": -1}, "concurrency is -1, but must be 0 or more"),
        ({"concurrency": "5"}, 'concurrency is "5", but must be a whole number, an object with a limit, or'),
        ({"concurrency": True}, "concurrency is true, but must be a whole number"),
        ({"concurrency": {"limit": -2}}, "concurrency.limit is -2, but must be 0 or more"),
        ({"concurrency": {"limit": "many"}}, 'concurrency.limit is "many", but must be a whole number'),
        ({"concurrency": [{"limit": 1, "scope": "app"}]}, 'concurrency[0].scope is "app", but must be'),
        ({"concurrency": [1, {"limit": 1, "scope": "env"}]}, "must have a key, since its scope is 'env'"),
        ({"concurrency": [1, 2, 3]}, "concurrency is [1,2,3], but may have 2 at most"),
        ({"concurrency": {"fn": [{"limit": 0}]}}, "concurrency.fn[0].limit is 0, but must be 1 or more"),
        ({"concurrency": {"fn": [{"limit": 1}] * 2}}, "but may have 1 at most"),
        ({"throttle": {"limit": -5, "period": "1m"}}, "throttle.limit is -5, but must be 1 or more"),
        ({"throttle": {"limit": 1, "period": "1m", "burst": -1}}, "throttle.burst is -1, but must be 0 or"),
        ({"throttle": {"limit": 1}}, "throttle.period is missing"),
        ({"throttle": {"limit": 1, "period": "soon"}}, 'throttle.period is "soon", but must be a dur'),
        ({"throttle": {"limit": 1, "period": 60}}, "throttle.period is 60, but must be a text"),
        ({"rateLimit": {"limit": 0, "period": "1m"}}, "rateLimit.limit is 0, but must be 1 or more"),
        ({"rateLimit": {"limit": 1, "period": "25h"}}, 'rateLimit.period is "25h", but must be a dur'),
        ({"rateLimit": {"limit": 1, "period": "1m", "key": "1 +"}}, 'rateLimit.key is "1 +", but must be a'),
        ({"idempotency": "event.data."}, 'idempotency is "event.data.", but must be a CEL expression'),
        ({"debounce": {"period": "999ms"}}, "debounce.period is \"999ms\", but must be a duration from"),
        ({"debounce": {"period": "169h"}}, 'debounce.period is "169h"'),
        ({"debounce": {"period": "1s", "timeout": "x"}}, 'debounce.timeout is "x"'),
        ({"batchEvents": {"maxSize": 1}}, "batchEvents.maxSize is 1, but must be 2 or more"),
        ({"batchEvents": {"maxSize": 101}}, "batchEvents.maxSize is 101, but must be 100 or less"),
        ({"batchEvents": {"maxSize": 2, "timeout": "10ms"}}, 'batchEvents.timeout is "10ms", but must be a'),
        (
            {"batchEvents": {"maxSize": 2}, "debounce": {"period": "1s"}, "cancel": [{"event": "e"}]},
            "must not have batchEvents together with cancel, debounce",
        ),
        ({"singleton": {"mode": "last"}}, "singleton.mode is \"last\", but must be 'skip' or 'cancel'"),
        ({"priority": {"run": 5}}, "priority.run is 5, but must be a text"),
        ({"timeouts": {"start": "-1s"}}, 'timeouts.start is "-1s", but must be a duration'),
        ({"retries": -1}, "retries is -1, but must be 0 or more"),
        ({"cancel": [{"if": "true"}]}, "cancel[0].event is missing"),
        ({"cancel": [{"event": "e", "timeout": "later"}]}, 'cancel[0].timeout is "later"'),
        ({"cancel": [{"event": f"e{i}"} for i in range(6)]}, "but may have 5 at most"),
        ({"triggers": [{}]}, "triggers[0] is {}, but must have an event or a cron schedule, and not both"),
        ({"triggers": [{"event": "e", "cron": "* * * * *"}]}, "must have an event or a cron schedule"),
        ({"triggers": [{"cron": "whenever"}]}, 'triggers[0].cron is "whenever", but must be a cron'),
        ({"triggers": [{"cron": "TZ=Mars/Base 0 9 * * *"}]}, "but must be a cron schedule such as"),
        ({"triggers": [{"cron": "0 1 * * *", "jitter": "6m"}]}, 'jitter is "6m", but must be a duration'),
        ({"triggers": [{"event": "e" * 256}]}, "but may have 255 characters at most"),
        ({"triggers": [{"event": "e", "expression": "a b"}]}, 'triggers[0].expression is "a b", but must'),
        ({"triggers": [{"event": "e"}] * 2}, "must differ; 'e' is there twice"),
        ({"triggers": [{"event": f"e{i}"} for i in range(11)]}, "but may have 10 at most"),
        ({"triggers": "e"}, 'triggers is "e", but must be a list'),
        ({"triggers": ["e"]}, 'triggers[0] is "e", but must be an object'),
        ({"steps": {}}, "steps is {}, but must not be empty"),
        ({"steps": {"step": {"runtime": {}}}}, "steps.step.runtime.url is missing"),
        ({"steps": {"step": {"runtime": {"url": "ftp://x"}}}}, "but must be a URL with one of the schemes"),
        ({"name": 5}, "name is 5, but must be a text"),
    ],
    ids=str,
)  # fmt: skip
def test_a_function_that_the_service_would_refuse_is_refused_with_field_value_and_what_is_allowed(
    config, fault
):
    message = str(refusal(function(**config)))
    assert message.startswith("The registration is refused. function 'a-f': ")
    assert fault in message
    assert not OF_PYTHON.search(message)


def test_all_faults_of_all_functions_are_told_at_once():
    refused = refusal(function("a-1", concurrency=-1, retries="x"), function("a-2"), {"name": "nameless"}, 7)
    assert "5 faults" in str(refused)
    assert [(fault["function"], fault["field"]) for fault in refused.faults] == [
        ("a-1", "concurrency"),
        ("a-1", "retries"),
        ("#2", "id"),
        ("#2", "steps"),
        ("#3", "it"),
    ]


def test_two_functions_with_one_id_are_refused():
    assert "functions" in str(refusal(function("a-1"), function("a-1")))
    assert "must have ids of their own; 'a-1' is there twice" in str(
        refusal(function("a-1"), function("a-1"))
    )


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ([], "App ID required"),
        ({"functions": []}, "App ID required"),
        ({"appName": 5}, "appName is 5, but must be a text"),
        ({"appName": "a", "functions": {}}, "functions is {}, but must be a list"),
    ],
)
def test_what_is_no_registration_at_all_is_refused(raw, message):
    with pytest.raises(RegistrationError, match=re.escape(message)):
        app_name(raw)


def test_a_registration_may_go_to_its_limits():
    triggers = [{"event": f"e{i}"} for i in range(10)]
    cancel = [{"event": f"e{i}", "if": "event.data.k == async.data.k", "timeout": "1h30m"} for i in range(5)]
    concurrency = [1, {"limit": 0, "key": "event.data.k", "scope": "ENV"}]
    rate = {"limit": 1, "period": "24h"}
    rules = {"concurrency": concurrency, "debounce": {"period": "7d"}, "rateLimit": rate}
    app_name(registration(function(triggers=triggers, cancel=cancel, **rules)))
    app_name(
        registration(function(triggers=[{"event": "e"}, {"event": "e", "expression": "event.data.k == 1"}]))
    )
    app_name(registration(function(batchEvents={"maxSize": 100, "timeout": "60s"}, triggers=None)))


def test_what_sdks_leave_empty_is_no_fault():
    names = ("batchEvents", "cancel", "concurrency", "debounce", "idempotency", "priority", "rateLimit")
    empty = dict.fromkeys((*names, "throttle", "timeouts", "singleton", "retries"))
    app_name(registration(function(**empty)))
    app_name(
        registration(function(debounce={"period": "5s", "key": "", "timeout": None}, timeouts={"start": ""}))
    )


junk = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 200) | st.floats(allow_nan=False) | st.text(max_size=3)
    | st.sampled_from(["1s", "5m", "event.data.k", "fn", "env", "0 9 * * *", "skip"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["limit", "period", "key", "scope", "fn", "maxSize", "timeout", "event", "cron"]),
        inner,
        max_size=4,
    ),
    max_leaves=6,
)  # fmt: skip
fields = (
    "triggers",
    "cancel",
    "concurrency",
    "throttle",
    "rateLimit",
    "debounce",
    "batchEvents",
    "singleton",
)


@given(st.dictionaries(st.sampled_from((*fields, "priority", "timeouts", "retries", "idempotency")), junk))
def test_whatever_is_sent_is_refused_in_words_or_can_be_read_into_rules(config):
    message = fault_of(function(**config))
    if message is None:
        FlowControl.of(config)
    else:
        assert "function 'a-f': " in message
        assert not re.search(r"None|<class|object at|Input should|\{[a-z_]+\}", message)


async def test_one_bad_function_leaves_the_app_as_it_was_and_the_answer_lists_the_faults(world):
    url = f"{world.engine.url}/fn/register"
    assert (await world.http.post(url, json=registration(function("a-good")))).status_code == 200
    answer = await world.http.post(url, json=registration(function("a-good"), function("a-bad", retries=-1)))
    assert answer.status_code == 400
    fault = {"function": "a-bad", "field": "retries", "value": -1, "message": "must be 0 or more"}
    assert answer.json()["data"] == {"faults": [fault]}
    assert list(world.engine._executor.ledger.functions) == ["a-good"]


async def test_a_registration_that_the_database_cannot_take_is_taken_when_it_is_sent_again(world):
    url, db = f"{world.engine.url}/fn/register", world.engine._store.db
    db.execute("PRAGMA query_only = 1")
    assert (await world.http.post(url, json=registration(function()))).status_code == 503
    db.execute("PRAGMA query_only = 0")
    assert world.engine._executor.ledger.functions == {}
    assert (await world.http.post(url, json=registration(function()))).json()["modified"] is True
