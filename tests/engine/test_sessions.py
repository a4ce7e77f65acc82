"""How an event's sessions come from its sender and from the run that sends it."""

from __future__ import annotations

import pytest

from flowctl.engine.sessions import resolved


@pytest.mark.parametrize(
    ("own", "inherited", "kept"),
    [
        ({"a": "1"}, {"a": "2", "b": "3"}, {"a": "1", "b": "3"}),
        ({"a": None}, {"a": "2", "b": "3"}, {"b": "3"}),
        (None, {"a": "2"}, {}),
        ({"n": 7}, None, {"n": "7"}),
        ({}, dict.fromkeys("fedcba", "x"), dict.fromkeys("abcde", "x")),
        ({"z": "1"}, dict.fromkeys("fedcba", "x"), {"z": "1"} | dict.fromkeys("abcd", "x")),
    ],
)
def test_own_sessions_win_null_takes_away_and_five_are_kept(own, inherited, kept):
    meta = resolved({"sessions": own, "propagated_sessions": inherited})
    assert meta == ({"sessions": kept} if kept else {})


def test_an_event_without_sessions_inherits_them():
    assert resolved({"propagated_sessions": {"a": "1"}}) == {"sessions": {"a": "1"}}
    assert resolved(None) == {}


@pytest.mark.parametrize(
    ("sessions", "words"),
    [
        ({str(n): "x" for n in range(6)}, "at most 5 entries"),
        ({"a": True}, "'a' must be a string"),
        ({"a": ""}, "ID of event session 'a'"),
        ({"k" * 129: "x"}, "session key"),
        ([1], "must be an object"),
    ],
)
def test_sessions_that_are_none_are_refused_by_name(sessions, words):
    with pytest.raises(ValueError, match=words):
        resolved({"sessions": sessions})
