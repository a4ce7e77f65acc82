"""GraphQL, as SDKs' own tests ask it of a dev server.

Called by `api`. A resolver gives a mapping whose values are data, or functions that are called when a query
asks for that field.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import orjson

from flowctl.engine import rest_statements as sql
from flowctl.engine.answers import RequestError
from flowctl.engine.apps import Apps
from flowctl.engine.connections import events_page, runs_page
from flowctl.engine.graphql_schema import SCHEMA
from flowctl.engine.protocol import DEFERRED, ENVIRONMENT_ID, SCHEDULED, Function, iso
from flowctl.engine.statements import STEP_HISTORY
from flowctl.engine.store import RunRow, event_json
from flowctl.engine.timing import Clock

if TYPE_CHECKING:
    from graphql import GraphQLSchema

STREAM_LIMIT = 1_000
NO_APP_ID = "00000000-0000-0000-0000-000000000000"
Node = Mapping[str, Any]


class Queries:
    """One method a field of the schema's `Query` and `Mutation`."""

    def __init__(self, apps: Apps, clock: Clock) -> None:
        self._apps, self._clock = apps, clock
        self._ledger, self._store = apps.ledger, apps.ledger.store

    def apps(self, _: Any) -> list[Node]:
        """Every app."""
        return [self._app(app) for app in self._apps.to_json()]

    def functions(self, _: Any) -> list[Node]:
        """Every function, by its slug."""
        return [_function(f) for _, f in sorted(self._ledger.functions.items())]

    def functionBySlug(self, _: Any, *, query: Node) -> Node | None:  # noqa: N802 - the schema's name
        """One function."""
        function = self._ledger.functions.get(query["functionSlug"])
        return _function(function) if function else None

    def stream(self, _: Any, *, query: Node) -> list[Node]:
        """Events, newest first, with their runs."""
        events = self._events(
            before=query.get("before"),
            limit=query["limit"],
            internal=bool(query.get("includeInternalEvents")),
        )
        after = query.get("after") or ""
        return [self._stream_item(event) for event in events if event["internal_id"] > after]

    def event(self, _: Any, *, query: Node) -> Node | None:
        """One event; one that is not known (yet) has no runs."""
        found = self._store.event(query["eventId"])
        return self._event(found) if found else {"id": query["eventId"], "functionRuns": []}

    def events(self, _: Any, *, query: Node) -> list[Node]:
        """The newest events."""
        return [self._event(event) for event in self._events(before=query.get("lastEventId"))]

    def eventV2(self, _: Any, *, id: str) -> Node:  # noqa: N802 - the schema's name
        """One event; raises LookupError when there is none."""
        event = self._store.event(id)
        if event is None:
            raise LookupError(f"event not found: {id}")
        return self._event_v2(event)

    def eventsV2(self, _: Any, **asked: Any) -> Node:  # noqa: N802 - the schema's name
        """Events, page by page."""
        return events_page(self._store, asked, self._event_v2)

    def runs(self, _: Any, **asked: Any) -> Node:
        """Runs, page by page."""
        return runs_page(self._store, asked, self._apps.slugs_of, self._run)

    def _event_v2(self, event: dict[str, Any]) -> Node:
        id = event["internal_id"]
        return {
            "envID": ENVIRONMENT_ID,
            "id": id,
            "idempotencyKey": event["id"],
            "name": event["name"],
            "occurredAt": iso(event["ts"]),
            "receivedAt": event["received_at"],
            "raw": _raw(event),
            "runs": _later(lambda: [self._run(run) for run in self._store.runs_of_event(id)]),
        }

    def functionRun(self, _: Any, *, query: Node) -> Node | None:  # noqa: N802 - the schema's name
        """One run, in the older shape."""
        run = self._store.run(query["functionRunId"])
        return self._old_run(run) if run else None

    def run(self, _: Any, *, runID: str) -> Node | None:  # noqa: N803 - the schema's name
        """One run."""
        run = self._store.run(runID)
        return self._run(run) if run else None

    def runTrace(self, _: Any, *, runID: str) -> Node:  # noqa: N802, N803 - the schema's names
        """The steps of a run."""
        return self._trace(self._known(runID))

    def runTrigger(self, _: Any, *, runID: str) -> Node:  # noqa: N802, N803 - the schema's names
        """The events of a run."""
        run = self._known(runID)
        return {
            "eventName": run.event["name"],
            "IDs": [run.event_id],
            "payloads": [orjson.dumps(event).decode() for event in run.events],
            "timestamp": iso(run.started_at),
            "isBatch": len(run.events) > 1,
        }

    def runTraceSpanOutputByID(self, _: Any, *, outputID: str) -> Node:  # noqa: N802, N803 - the schema's
        """What a step, or (for an id with no step) a run, came to."""
        run_id, _, step_id = outputID.partition("/")
        if step_id:
            return _step_output(self._store.steps(run_id).get(step_id))
        run = self._known(run_id)
        return _step_output({"error": run.output} if run.status == "Failed" else {"data": run.output})

    def cancelRun(self, _: Any, *, runID: str) -> Node:  # noqa: N802, N803 - the schema's names
        """End a run."""
        self._known(runID)
        self._ledger.cancel(runID, now=self._clock.now())
        return self._old_run(self._known(runID))

    def invokeFunction(  # noqa: N802 - the schema's name
        self,
        _: Any,
        *,
        functionSlug: str,  # noqa: N803 - the schema's name
        data: Node | None = None,
        user: Node | None = None,
        meta: Node | None = None,  # noqa: ARG002 - the schema's; this engine keeps no such
    ) -> bool:
        """Run a function by its id."""
        self._ledger.invoke(functionSlug, {"data": data or {}, "user": user or {}}, now=self._clock.now())
        return True

    def deleteAppByName(self, _: Any, *, name: str) -> bool:  # noqa: N802 - the schema's name
        """Forget an app."""
        return self._apps.remove(name, now=self._clock.now())

    def _known(self, run_id: str) -> RunRow:
        run = self._store.run(run_id)
        if run is None:
            raise LookupError(f"run not found: {run_id}")
        return run

    def _events(
        self, *, before: str | None = None, limit: int = STREAM_LIMIT, internal: bool = False
    ) -> list[dict[str, Any]]:
        page = {"cursor": before or "~", "after": 0, "before": 2**62, "limit": min(limit, STREAM_LIMIT)}
        rows = self._store.db.execute(sql.ALL_EVENTS if internal else sql.EVENTS, page).fetchall()
        return [event_json(row) for *row, _ in rows]

    def _app(self, app: Node) -> Node:
        functions = self._apps.functions_of(app["name"])
        return {
            "id": app["id"],
            "externalID": app["name"],
            "name": app["name"],
            "sdkLanguage": app["sdk_language"],
            "sdkVersion": app["sdk_version"],
            "framework": app["framework"],
            "url": app["url"],
            "functions": [_function(function) for function in functions],
            "functionCount": len(functions),
            "connected": True,
            "error": None,
        }

    def _event(self, event: dict[str, Any]) -> Node:
        id = event["internal_id"]
        return {
            "id": id,
            "externalID": event["id"],
            "name": event["name"],
            "createdAt": event["received_at"],
            "payload": orjson.dumps(event["data"]).decode(),
            "raw": _raw(event),
            "totalRuns": _later(lambda: len(self._store.runs_of_event(id))),
            "functionRuns": _later(lambda: self._old_runs(id)),
        }

    def _stream_item(self, event: dict[str, Any]) -> Node:
        is_cron = event["name"] == SCHEDULED
        return {
            "id": event["internal_id"],
            "trigger": event["data"].get("cron", "") if is_cron else event["name"],
            "type": "CRON" if is_cron else "EVENT",
            "createdAt": event["received_at"],
            "inBatch": False,
            "runs": _later(lambda: self._old_runs(event["internal_id"])),
        }

    def _old_runs(self, event_id: str) -> list[Node]:
        return [self._old_run(run) for run in self._store.runs_of_event(event_id)]

    def _old_run(self, run: RunRow) -> Node:
        function = self._ledger.functions.get(run.slug)
        return {
            "id": run.run_id,
            "functionID": run.function_id,
            "function": _function(function) if function else None,
            "status": _status(run),
            "startedAt": iso(run.started_at),
            "finishedAt": iso(run.ended_at) if run.ended_at else None,
            "output": _output(run),
            "eventID": run.event_id,
            "event": _later(lambda: (event := self._store.event(run.event_id)) and self._event(event)),
        }

    def _run(self, run: RunRow) -> Node:
        return {
            **self._old_run(run),
            "appID": self._app_id(run),
            "app": _later(lambda: self._app_of(run)),
            "traceID": run.run_id,
            "queuedAt": iso(run.started_at),
            "endedAt": iso(run.ended_at) if run.ended_at else None,
            "triggerIDs": [run.event_id],
            "eventName": run.event["name"],
            "isBatch": len(run.events) > 1,
            "cronSchedule": run.event["data"].get("cron") if run.event["name"] == SCHEDULED else None,
            "isDeferred": run.event["name"] == DEFERRED,
            "trace": _later(lambda: self._trace(run)),
        }

    def _app_id(self, run: RunRow) -> str:
        function = self._ledger.functions.get(run.slug)
        return function.app_id if function else NO_APP_ID

    def _app_of(self, run: RunRow) -> Node | None:
        id = self._app_id(run)
        return next((self._app(app) for app in self._apps.to_json() if app["id"] == id), None)

    def _trace(self, run: RunRow) -> Node:
        function = self._ledger.functions.get(run.slug)
        steps = self._store.db.execute(STEP_HISTORY, (run.run_id,)).fetchall()
        notes = self._ledger.metadata.of(run.run_id)
        return {
            **_span(
                run,
                "",
                function.name if function else run.slug,
                kind="RUN",
                status=_status(run),
                ended=run.ended_at,
            ),
            "outputID": f"{run.run_id}/" if run.ended_at else None,
            "isRoot": True,
            "metadata": notes.get("", []),
            "childrenSpans": [
                {**_step_span(run, *step), "metadata": notes.get(step[0], [])} for step in steps
            ],
        }


@dataclass(frozen=True, slots=True)
class Asked:
    """The body of a GraphQL request."""

    query: str
    variables: dict[str, Any]
    operation: str | None

    @classmethod
    def of(cls, sent: Mapping[str, Any]) -> Asked:
        """Raises RequestError."""
        query, variables, operation = sent.get("query"), sent.get("variables"), sent.get("operationName")
        if not isinstance(query, str):
            raise RequestError(f"'query' must be text, not {query!r:.100}.")
        if not isinstance(variables, dict | None):
            raise RequestError(f"'variables' must be an object, not {variables!r:.100}.")
        if not isinstance(operation, str | None):
            raise RequestError(f"'operationName' must be text, not {operation!r:.100}.")
        return cls(query, variables or {}, operation or None)


def answer(queries: Queries, asked: Asked) -> tuple[Node, int]:
    """A GraphQL response (data, errors, or both) and its status: 422 for a query that cannot begin."""
    from graphql import graphql_sync  # noqa: PLC0415 - slow to import, and most engines never need it

    result = graphql_sync(
        _schema(),
        asked.query,
        root_value=queries,
        variable_values=asked.variables,
        operation_name=asked.operation,
    )
    if not result.errors:
        return {"data": result.data}, 200
    has_begun = any(error.path for error in result.errors)
    return refusal(*(error.formatted for error in result.errors), data=result.data), 200 if has_begun else 422


def refusal(*errors: Mapping[str, Any], data: Any = None) -> Node:
    """GraphQL's form of errors."""
    return {"data": data, "errors": errors}


@cache
def _schema() -> GraphQLSchema:
    from graphql import build_schema  # noqa: PLC0415 - as above

    return build_schema(SCHEMA)


def _later(make: Callable[[], Any]) -> Callable[..., Any]:
    """A field that is worked out only when a query asks for it."""

    def resolve(_info: object, **_arguments: object) -> Any:
        return make()

    return resolve


def _function(function: Function) -> Node:
    return {
        "id": function.id,
        "name": function.name,
        "slug": function.slug,
        "config": orjson.dumps(dict(function.config)).decode(),
        "triggers": [_trigger(trigger) for trigger in function.triggers],
        "url": function.url,
        "appID": function.app_id,
    }


def _trigger(trigger: Node) -> Node:
    if trigger.get("cron"):
        return {"type": "CRON", "value": trigger["cron"], "condition": None}
    return {"type": "EVENT", "value": trigger.get("event") or "", "condition": trigger.get("expression")}


def _span(run: RunRow, step_id: str, name: str, *, kind: str, status: str, ended: int | None) -> Node:
    return {
        "runID": run.run_id,
        "functionID": run.function_id,
        "spanID": step_id or run.run_id,
        "traceID": run.run_id,
        "name": name,
        "stepID": step_id or None,
        "stepType": kind,
        "status": status,
        "attempts": 0,
        "duration": ended - run.started_at if ended else None,
        "outputID": f"{run.run_id}/{step_id}",
        "queuedAt": iso(run.started_at),
        "startedAt": iso(run.started_at),
        "endedAt": iso(ended) if ended else None,
        "childrenSpans": [],
        "isRoot": False,
        "metadata": [],
    }


def _step_span(run: RunRow, *step: Any) -> Node:
    step_id, name, ended, body, attempt = step
    kept = orjson.loads(body)
    failed = isinstance(kept, dict) and bool(kept.get("error"))
    status = "FAILED" if failed else "COMPLETED"
    return {**_span(run, step_id, name, kind="STEP", status=status, ended=ended), "attempts": attempt}


def _status(run: RunRow) -> str:
    return {"SCHEDULED": "QUEUED"}.get(run.status.upper(), run.status.upper())


def _output(run: RunRow) -> str | None:
    return orjson.dumps(run.output).decode() if run.ended_at else None


def _raw(event: dict[str, Any]) -> str:
    kept = ("id", "name", "data", "user", "ts", "v")
    return orjson.dumps({key: event[key] for key in kept if key in event}).decode()


def _step_output(body: Any) -> Node:
    error = body.get("error") if isinstance(body, dict) else None
    if error:
        shown = error if isinstance(error, dict) else {"message": str(error)}
        return {"data": None, "error": {"message": "", **shown}}
    data = body.get("data", body) if isinstance(body, dict) else body
    return {"data": orjson.dumps(data).decode(), "error": None}
