"""Expressions as Inngest evaluates them: CEL in which nothing that is missing fails."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowctl.engine.expressions import InvalidExpressionError, compiled, holds

FACTS = {
    "event": {
        "name": "t/e",
        "ts": 1_700_000_000_000,
        "data": {
            "n": 2,
            "f": 1.5,
            "text": "Hello",
            "yes": True,
            "nothing": None,
            "empty": "",
            "tags": ["a", "b"],
            "user": {"id": "u1", "plan": {"name": "pro"}},
            "json": '{"x": 1}',
            "at": "2024-01-02T03:04:05Z",
        },
    },
    "async": {"data": {"id": "u1", "n": 3}},
}


@pytest.mark.parametrize(
    "text",
    [
        "event.data.n == 2",
        "event.data.n == 2.0",
        "event.data.n < 2.5 && event.data.f <= 1.5",
        "event.data.n != '2'",
        "event.data.user.id == async.data.id",
        "event['data'].user['plan'].name == 'pro'",
        "event.name.startsWith('t/') && event.data.text.endsWith('lo')",
        "event.data.text.contains('ell')",
        "event.data.text.matches('^H.*o$')",
        "lowercase(event.data.text) == 'hello' && uppercase('x') == 'X'",
        "size(event.data.tags) == 2 && event.data.text.size() == 5",
        "'a' in event.data.tags && !('c' in event.data.tags)",
        "event.data.n in [1, 2]",
        "'id' in event.data.user",
        "event.data.tags.exists(t, t == 'b')",
        "event.data.tags.all(t, size(t) == 1)",
        "event.data.tags.filter(t, t != 'a')[0] == 'b'",
        "has(event.data.user.plan) && !has(event.data.user.age)",
        "has(event.data.nothing)",
        "event.data.yes ? event.data.n > 1 : false",
        "event.data.yes && event.data.text",
        "event.data.empty || event.data.n",
        "(event.data.n + 1) * 2 == 6 && 7 % 4 == 3 && -event.data.n < 0",
        "event.ts > 1600000000000 && date(event.ts) < now()",
        "date(event.data.at) < date('2024-01-03') && now_plus('1h') > now_minus('1h')",
        "json_parse(event.data.json).x == 1 && b64decode('aGk=') == 'hi'",
        "async.data.n - event.data.n == 1",
    ],
)
def test_a_condition_holds(text):
    assert holds(text, FACTS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("event.data.missing == 'x'", False),
        ("event.data.missing != 'x'", True),
        ("event.data.missing == null", True),
        ("event.data.missing != null", False),
        ("event.data.nothing == null", True),
        ("event.data.nothing == 'x'", False),
        ("event.data.missing == event.data.other", False),
        ("event.data.missing < 5", True),
        ("5 < event.data.missing", False),
        ("event.data.missing > 5", False),
        ("event.data.n > event.data.missing", True),
        ("event.data.n > null", True),
        ("event.data.missing.deep.er == 'x' || event.data.n == 2", True),
        ("event.data.missing.contains('x')", False),
        ("size(event.data.missing) == 0", True),
        ("event.missing.exists(x, x == 'a')", False),
        ("event.data.missing && event.data.yes", False),
        ("event.data.text > 5", False),
        ("1 / 0 == 1", False),
    ],
)
def test_what_is_missing_counts_as_null_and_fails_nothing(text, expected):
    assert holds(text, FACTS) is expected


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("event.data.text + '-' + event.data.f + '-' + event.data.yes", "Hello-1.5-true"),
        ("event.data.text + event.data.missing", "Hello"),
        ("event.data.missing + event.data.text", "Hello"),
        ("event.data.user.plan", {"name": "pro"}),
        ("event.data.missing.deep", None),
        ("event.data.n > 1 ? 10 : 0", 10),
    ],
)
def test_a_key_is_any_value(text, value):
    assert compiled(text)(FACTS) == value


@pytest.mark.parametrize(
    "text",
    ["event.data.", "event.data.n ==", "(", "nonsense(event)", "a.b.c(1)", "(" * 999 + "1" + ")" * 999],
)
def test_what_is_no_expression_is_told_and_never_holds(text):
    with pytest.raises(InvalidExpressionError, match="is no valid expression"):
        compiled(text)
    assert not holds(text, FACTS)


@pytest.mark.parametrize(
    "text",
    [
        "event.data.text.matches('(l+)+$')",
        "event.data.text.matches('[')",
        "event.data.text * event.data.n",
        "event.data.format % event.data.n",
    ],
)
def test_what_a_sender_chooses_takes_no_more_time_and_memory_than_it_is_long(text):
    data = {"text": "l" * 1000 + "o", "n": 2**62, "format": f"%{2**62}d"}
    assert not holds(text, {"event": {"data": data}})


scalars = st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3)
operators = st.sampled_from(["==", "!=", "<", "<=", ">", ">=", "+", "-", "*", "/", "%", "&&", "||", "in"])


@given(left=scalars, right=scalars, operator=operators, present=st.booleans())
def test_no_operator_fails_on_any_two_values(left, right, operator, present):
    data = {"a": left} | ({"b": right} if present else {})
    assert holds(f"(event.data.a {operator} event.data.b) == null || true", {"event": {"data": data}})


@given(a=st.integers(-(2**40), 2**40), b=st.integers(-(2**40), 2**40))
def test_comparisons_agree_with_arithmetic(a, b):
    facts = {"event": {"data": {"a": a, "b": b}}}
    for operator, expected in (("<", a < b), ("<=", a <= b), (">", a > b), (">=", a >= b), ("!=", a != b)):
        assert holds(f"event.data.a {operator} event.data.b", facts) is expected
