"""What a database may leave out when it looks for the runs that an event concerns."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowctl.engine.expressions import holds, needed_text

VALUES = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-2, 2) | st.text(max_size=4)
CONDITIONS = st.sampled_from(
    [
        None,
        "event.data.id == async.data.id",
        "async.data.id == event.data.id",
        "event.data.id == async.data.other",
        "async.data.id == 'a'",
        'event.data.id == "a"',
        "event.data.id == event.data.other",
    ]
)


@given(CONDITIONS, VALUES, VALUES)
def test_nothing_is_left_out_for_which_the_condition_holds(condition, mine, theirs):
    event = {"name": "begun", "data": {"id": mine, "other": "a"}}
    other = {"name": "came", "data": {"id": theirs}}
    if holds(condition, {"event": event, "async": other}):
        text = needed_text(condition, other)
        assert text is not None
        assert text in orjson.dumps(event)


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        ("event.data.id == async.data.id", b'"7\\n"'),
        ("async.data.id == 'other'", None),
        ("async.data.id == event.data.id && true", b""),
    ],
)
def test_an_equality_needs_the_text_of_its_value(condition, text):
    assert needed_text(condition, {"data": {"id": "7\n"}}) == text
