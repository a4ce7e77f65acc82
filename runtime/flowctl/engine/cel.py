"""CEL as Inngest evaluates it: the only file that knows the CEL library, of which it takes the grammar.

Called by `expressions`. What is not there counts as null and never fails an expression, numbers compare with
numbers whatever their kind, `&&`, `||` and `?:` take any value as true or false, `+` joins unlike values.
"""

from __future__ import annotations

import base64
import operator
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import celpy
import orjson
import re2
from celpy.celparser import CELParseError
from celpy.evaluation import celstr

from flowctl.engine.protocol import duration_ms

Facts = Mapping[str, Any]
Evaluate = Callable[[Facts], Any]
Node = Any  # a tree or a token of the grammar, whose types lark leaves open

MISSING = object()
"""What is not in the facts, and what an operation on unfit values gives."""


class UnknownFunctionError(ValueError):
    """A function that expressions do not have."""


def compiled(text: str) -> Evaluate:
    """A program; raises ValueError for a text that is no expression. It gives None for what is missing."""
    try:
        evaluate = _node(celpy.Environment().compile(text))
    except CELParseError as err:
        raise ValueError(str(err)) from err
    except RecursionError as err:
        raise ValueError("it is nested too deeply") from err

    def run(facts: Facts) -> Any:
        value = evaluate(facts)
        return None if value is MISSING else value

    return run


def is_true(value: Any) -> bool:
    """Whether a value counts as true: a list or an object does, even when it is empty."""
    if value is MISSING or value is None:
        return False
    return bool(value) if isinstance(value, bool | int | float | str) else True


def equal(left: Any, right: Any) -> bool:
    """Equality of values; what is missing equals null alone."""
    if left is MISSING or right is MISSING:
        return left is None or right is None
    if isinstance(left, bool) != isinstance(right, bool):
        return False
    return left == right


def _node(tree: Node) -> Evaluate:
    """The evaluation of a node of the grammar, whose name chooses how."""
    if len(tree.children) == 1 and tree.data in _PASSED_THROUGH:
        return _node(tree.children[0])
    return _NODES[tree.data](tree)


def _conditional(tree: Node) -> Evaluate:
    condition, then, otherwise = map(_node, tree.children)
    return lambda facts: (then if is_true(condition(facts)) else otherwise)(facts)


def _or(tree: Node) -> Evaluate:
    left, right = map(_node, tree.children)
    return lambda facts: is_true(left(facts)) or is_true(right(facts))


def _and(tree: Node) -> Evaluate:
    left, right = map(_node, tree.children)
    return lambda facts: is_true(left(facts)) and is_true(right(facts))


def _binary(tree: Node) -> Evaluate:
    """A relation, sum or product: the first child names the operator and holds the left side."""
    head, right_tree = tree.children
    left, right, apply = _node(head.children[0]), _node(right_tree), _OPERATORS[head.data]
    return lambda facts: apply(left(facts), right(facts))


def _unary(tree: Node) -> Evaluate:
    sign, operand = tree.children[0], _node(tree.children[1])
    if sign.data == "unary_not":
        return lambda facts: not is_true(operand(facts))
    return lambda facts: _arithmetic(operator.sub)(0, operand(facts))


def _dot(tree: Node) -> Evaluate:
    of, name = _node(tree.children[0]), str(tree.children[1])
    return lambda facts: _member(of(facts), name)


def _index(tree: Node) -> Evaluate:
    of, key = map(_node, tree.children)
    return lambda facts: _member(of(facts), key(facts))


def _ident(tree: Node) -> Evaluate:
    name = str(tree.children[0])
    return lambda facts: facts.get(name, MISSING)


def _call(tree: Node) -> Evaluate:
    """`f(x)`."""
    name, arguments = str(tree.children[0]), _arguments(tree, 1)
    if name == "has" and len(arguments) == 1:
        of = _node(arguments[0])
        return lambda facts: of(facts) is not MISSING
    return _applied(name, [_node(argument) for argument in arguments])


def _method(tree: Node) -> Evaluate:
    """`x.f(y)`; the macros `exists`, `all`, … bind a name to each element."""
    of, name, arguments = _node(tree.children[0]), str(tree.children[1]), _arguments(tree, 2)
    if name in _MACROS and len(arguments) == 2:
        variable, body = _variable(arguments[0]), _node(arguments[1])
        return _MACROS[name](of, variable, body)
    return _applied(name, [of, *map(_node, arguments)])


def _applied(name: str, arguments: Sequence[Evaluate]) -> Evaluate:
    function = _FUNCTIONS.get(name)
    if function is None:
        raise UnknownFunctionError(
            f"there is no function {name!r}; known are {', '.join(sorted(_FUNCTIONS))}"
        )

    def evaluate(facts: Facts) -> Any:
        values = [argument(facts) for argument in arguments]
        if MISSING in values:
            return 0 if name == "size" else False
        try:
            return function(*values)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            return MISSING

    return evaluate


def _literal(tree: Node) -> Evaluate:
    text = tree.children[0]
    match text.type:
        case "INT_LIT" | "UINT_LIT":
            value: Any = int(text.rstrip("uU"), 0)
        case "FLOAT_LIT":
            value = float(text)
        case "BOOL_LIT":
            value = text == "true"
        case "NULL_LIT":
            value = None
        case _:
            value = str(celstr(text))
    return lambda _facts: value


def _list(tree: Node) -> Evaluate:
    items = [_node(item) for item in _arguments(tree, 0)]
    return lambda facts: [item(facts) for item in items]


def _map(tree: Node) -> Evaluate:
    flat = [_node(item) for item in _arguments(tree, 0)]
    pairs = list(zip(flat[::2], flat[1::2], strict=True))
    return lambda facts: {key(facts): value(facts) for key, value in pairs}


def _arguments(tree: Node, index: int) -> list[Node]:
    """The expressions of an optional list among a node's children."""
    inner: Node = tree.children[index] if len(tree.children) > index else None
    return list(getattr(inner, "children", ()))


def _variable(tree: Node) -> str:
    """The name that a macro's first argument is."""
    while hasattr(tree, "children") and len(tree.children) == 1:
        tree = tree.children[0]
    if hasattr(tree, "children"):
        raise ValueError("the first argument of a macro must be a name")
    return str(tree)


def _member(value: Any, key: Any) -> Any:
    if isinstance(value, Mapping):
        return value.get(key, MISSING)
    if isinstance(value, list) and isinstance(key, int) and -1 < key < len(value):
        return value[key]
    return MISSING


def _less(left: Any, right: Any, compare: Callable[[Any, Any], bool]) -> bool:
    """An order: what is missing comes before everything, null is the zero of the other side."""
    if left is MISSING or right is MISSING:
        below = compare in {operator.lt, operator.le}
        return below if left is MISSING else not below
    left, right = _zero(right) if left is None else left, _zero(left) if right is None else right
    try:
        return bool(compare(left, right))
    except TypeError:
        return False


def _zero(other: Any) -> Any:
    return "" if isinstance(other, str) else 0


def _order(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    return lambda left, right: _less(left, right, compare)


def _arithmetic(apply: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """An operation on numbers and times: Python's repeats texts and lists, and formats texts."""

    def evaluate(left: Any, right: Any) -> Any:
        if isinstance(left, str | list) or isinstance(right, str | list):
            return MISSING
        try:
            return apply(left, right)
        except (ArithmeticError, TypeError):
            return MISSING

    return evaluate


def _add(left: Any, right: Any) -> Any:
    if left is MISSING or right is MISSING:
        return right if left is MISSING else left
    try:
        return left + right
    except TypeError:
        return f"{_text(left)}{_text(right)}"


def _divide(left: Any, right: Any) -> Any:
    return int(left / right) if isinstance(left, int) and isinstance(right, int) else left / right


def _in(left: Any, right: Any) -> bool:
    if left is MISSING or not isinstance(right, list | Mapping):
        return False
    return any(equal(left, item) for item in right)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return orjson.dumps(value, default=str).decode()


def _items(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | Mapping) else []


def _macro(gather: Callable[[list[Any], list[Any]], Any]) -> Callable[[Evaluate, str, Evaluate], Evaluate]:
    """A macro, by what it makes of the elements and of what its body gave for each."""

    def build(of: Evaluate, variable: str, body: Evaluate) -> Evaluate:
        def evaluate(facts: Facts) -> Any:
            items = _items(of(facts))
            return gather(items, [body({**facts, variable: item}) for item in items])

        return evaluate

    return build


def _date(value: Any) -> datetime:
    """Of an ISO text, or of epoch milliseconds."""
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value / 1000, UTC)
    moment = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _now() -> datetime:
    return datetime.now(UTC)


def _now_plus(text: str) -> datetime:
    return _now() + _span(text)


def _now_minus(text: str) -> datetime:
    return _now() - _span(text)


def _contains(text: str, part: str) -> bool:
    return part in text


def _matches(text: str, pattern: str) -> bool:
    """In time that grows with the text alone: who sends events chooses that."""
    return _pattern(pattern).search(text) is not None


@lru_cache(maxsize=256)
def _pattern(text: str) -> Any:
    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(text, options)
    except re2.error as err:
        raise ValueError(f"{text!r} is no regular expression") from err


def _decoded(text: str) -> str:
    return base64.b64decode(text).decode()


def _bool(value: Any) -> bool:
    return value in {True, "true"}


def _span(text: str) -> timedelta:
    return timedelta(milliseconds=duration_ms(text))


_PASSED_THROUGH = frozenset(
    {
        "expr",
        "conditionalor",
        "conditionaland",
        "relation",
        "addition",
        "multiplication",
        "unary",
        "member",
        "primary",
        "paren_expr",
    }
)

_NODES: Mapping[str, Callable[[Node], Evaluate]] = {
    "expr": _conditional,
    "conditionalor": _or,
    "conditionaland": _and,
    "relation": _binary,
    "addition": _binary,
    "multiplication": _binary,
    "unary": _unary,
    "member_dot": _dot,
    "member_index": _index,
    "member_dot_arg": _method,
    "ident": _ident,
    "dot_ident": _ident,
    "ident_arg": _call,
    "dot_ident_arg": _call,
    "literal": _literal,
    "list_lit": _list,
    "map_lit": _map,
}

_OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {
    "relation_eq": equal,
    "relation_ne": lambda left, right: not equal(left, right),
    "relation_lt": _order(operator.lt),
    "relation_le": _order(operator.le),
    "relation_gt": _order(operator.gt),
    "relation_ge": _order(operator.ge),
    "relation_in": _in,
    "addition_add": _add,
    "addition_sub": _arithmetic(operator.sub),
    "multiplication_mul": _arithmetic(operator.mul),
    "multiplication_div": _arithmetic(_divide),
    "multiplication_mod": _arithmetic(operator.mod),
}

_MACROS: Mapping[str, Callable[[Evaluate, str, Evaluate], Evaluate]] = {
    "exists": _macro(lambda _, found: any(map(is_true, found))),
    "all": _macro(lambda _, found: all(map(is_true, found))),
    "exists_one": _macro(lambda _, found: sum(map(is_true, found)) == 1),
    "map": _macro(lambda _, found: found),
    "filter": _macro(lambda items, found: [i for i, keep in zip(items, found, strict=True) if is_true(keep)]),
}

_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "size": len,
    "contains": _contains,
    "startsWith": str.startswith,
    "endsWith": str.endswith,
    "matches": _matches,
    "lowercase": str.lower,
    "uppercase": str.upper,
    "b64decode": _decoded,
    "json_parse": orjson.loads,
    "string": _text,
    "int": int,
    "uint": int,
    "double": float,
    "bool": _bool,
    "date": _date,
    "timestamp": _date,
    "duration": _span,
    "now": _now,
    "now_plus": _now_plus,
    "now_minus": _now_minus,
}
