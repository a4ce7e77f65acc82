"""The few GraphQL queries that SDKs' tests ask of a dev server; whole objects, selections are ignored.

Called by `api`; reads the store. A query whose root field is not among these gets a GraphQL error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from flowctl.engine import statements as sql
from flowctl.engine.protocol import iso
from flowctl.engine.store import Store

_FIELD = re.compile(r"\b(event|run|runTrigger|runTraceSpanOutputByID)\s*\(([^)]*)\)")
_VARIABLE = re.compile(r"\$(\w+)|\"([^\"]*)\"")


def answer(store: Store, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    """A GraphQL response."""
    body = query[query.find("{") :]
    data = {
        field: _RESOLVERS[field](store, _argument(text, variables)) for field, text in _FIELD.findall(body)
    }
    if not data:
        return {"data": None, "errors": [{"message": "This engine does not answer that query."}]}
    return {"data": data}


def _argument(text: str, variables: Mapping[str, Any]) -> str:
    found = _VARIABLE.search(text)
    if found is None:
        return ""
    return str(variables.get(found[1], "")) if found[1] else found[2]


def _event(store: Store, id: str) -> Any:
    runs = [{"id": run.run_id, "status": run.status.upper()} for run in store.runs_of_event(id)]
    return {"id": id, "functionRuns": runs}


def _run(store: Store, id: str) -> Any:
    run = store.run(id)
    if run is None:
        return None
    spans = [
        {"name": name, "outputID": f"{id}/{step_id}", "endedAt": iso(ended) if ended else None}
        for step_id, name, ended, _ in store.db.execute(sql.STEP_HISTORY, (id,)).fetchall()
    ]
    return {
        "id": id,
        "status": {"SCHEDULED": "QUEUED"}.get(run.status.upper(), run.status.upper()),
        "output": orjson.dumps(run.output).decode() if run.ended_at else None,
        "trace": {"childrenSpans": spans},
    }


def _trigger(store: Store, id: str) -> Any:
    run = store.run(id)
    return None if run is None else {"payloads": [orjson.dumps(event).decode() for event in run.events]}


def _output(store: Store, id: str) -> Any:
    run_id, _, step_id = id.partition("/")
    body = store.steps(run_id).get(step_id)
    error = body.get("error") if isinstance(body, dict) else None
    if error:
        return {"data": None, "error": {key: error.get(key) for key in ("name", "message", "stack")}}
    data = body.get("data", body) if isinstance(body, dict) else body
    return {"data": orjson.dumps(data).decode(), "error": None}


_RESOLVERS: dict[str, Callable[[Store, str], Any]] = {
    "event": _event,
    "run": _run,
    "runTrigger": _trigger,
    "runTraceSpanOutputByID": _output,
}
