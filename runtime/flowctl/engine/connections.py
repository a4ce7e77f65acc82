"""Pages of runs and of events, as GraphQL connections: called by `queries`, reads the store."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from flowctl.engine import rest_statements as sql
from flowctl.engine import search
from flowctl.engine.expressions import InvalidExpressionError
from flowctl.engine.protocol import time_ms
from flowctl.engine.store import RunRow, Store, event_json

MAX_PAGE = 400
EVER = 2**62
Node = Mapping[str, Any]
Edges = Sequence[tuple[Any, Node]]

_COLUMNS = {"QUEUED_AT": "started_at", "STARTED_AT": "started_at", "ENDED_AT": "ended_at"}
_STATUSES = {"QUEUED": "Scheduled"}


class InvalidPageError(LookupError):
    """A page was asked for in words that say none."""


def runs_page(
    store: Store, asked: Node, app_slugs: Callable[[str], Sequence[str]], show: Callable[[RunRow], Node]
) -> Node:
    """Runs by `filter` and `orderBy`, so many as `first` from `after` on."""
    wanted, order = asked["filter"], (asked["orderBy"] or [{"field": "QUEUED_AT", "direction": "DESC"}])[0]
    by, direction = _COLUMNS[order["field"]], order["direction"]
    slugs = [slug for app in wanted.get("appIDs") or () for slug in app_slugs(app)]
    facts = {
        **_span(wanted),
        "statuses": _list(wanted.get("status"), lambda text: _STATUSES.get(text, text.capitalize())),
        "functions": _list(wanted.get("functionIDs")),
        "slugs": None if wanted.get("appIDs") is None else orjson.dumps(slugs).decode(),
    }
    at, id = _cursor(asked.get("after")) or (None, None)
    where = sql.RUNS_WHERE.format(_COLUMNS[wanted.get("timeField") or "QUEUED_AT"])
    where += _searched(store, wanted, search.RUN_MATCHES)
    page = sql.RUNS_PAGE.format(where, by, "<" if direction == "DESC" else ">", direction)
    limit = _limit(asked)
    rows = store.db.execute(page, {**facts, "at": at, "id": id, "limit": limit + 1}).fetchall()
    runs = [RunRow(*row) for row in rows]
    edges = [([getattr(run, by) or EVER, run.run_id], show(run)) for run in runs]
    return _connection(edges, asked, limit, lambda: store.db.execute(sql.COUNT_RUNS + where, facts))


def events_page(store: Store, asked: Node, show: Callable[[dict[str, Any]], Node]) -> Node:
    """Events by `filter`, the newest first."""
    wanted, limit = asked["filter"], _limit(asked)
    (last,) = _cursor(asked.get("after")) or ("~",)
    facts = {
        **_span(wanted),
        "names": _list(wanted.get("eventNames")),
        "internal": bool(wanted.get("includeInternalEvents")),
    }
    where = sql.EVENTS_WHERE + _searched(store, wanted, search.EVENT_MATCHES)
    page = sql.EVENTS_PAGE.format(where)
    rows = store.db.execute(page, {**facts, "cursor": last, "limit": limit + 1}).fetchall()
    events = [event_json(row) for row in rows]
    edges = [([event["internal_id"]], show(event)) for event in events]
    return _connection(edges, asked, limit, lambda: store.db.execute(sql.COUNT_EVENTS + where, facts))


def _connection(edges: Edges, asked: Node, limit: int, count: Callable[[], Any]) -> Node:
    """One row more than the page was read, to know whether there is another page."""

    def total(_info: object, **_: object) -> int:
        return count().fetchone()[0]

    shown = [
        {"cursor": base64.b64encode(orjson.dumps(place)).decode(), "node": node}
        for place, node in edges[:limit]
    ]
    return {
        "edges": shown,
        "pageInfo": {
            "hasNextPage": len(edges) > limit,
            "hasPreviousPage": bool(asked.get("after")),
            "startCursor": shown[0]["cursor"] if shown else None,
            "endCursor": shown[-1]["cursor"] if shown else None,
        },
        "totalCount": total,
    }


def _searched(store: Store, wanted: Node, condition: str) -> str:
    """The condition of a search, if there is one."""
    if not wanted.get("query"):
        return ""
    try:
        search.prepare(store.db, wanted["query"])
    except InvalidExpressionError as err:
        raise InvalidPageError(str(err)) from err
    return condition


def _span(wanted: Node) -> dict[str, int]:
    try:
        until = wanted.get("until")
        return {"from": time_ms(str(wanted["from"])), "until": time_ms(str(until)) if until else EVER}
    except ValueError as err:
        raise InvalidPageError(f"The filter's time is none: {err}") from err


def _limit(asked: Node) -> int:
    return max(1, min(asked["first"], MAX_PAGE))


def _list(values: Sequence[str] | None, stored: Callable[[str], str] = str) -> str | None:
    return None if values is None else orjson.dumps([stored(value) for value in values]).decode()


def _cursor(text: str | None) -> list[Any] | None:
    try:
        return orjson.loads(base64.b64decode(text, validate=True)) if text else None
    except (binascii.Error, ValueError) as err:
        raise InvalidPageError(f"{text!r} is no cursor of this engine's") from err
