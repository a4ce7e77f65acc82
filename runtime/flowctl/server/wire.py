"""What the REST API shows of workflows and runs, as JSON data; `models` has the same as types."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import orjson

from flowctl.step import Step
from flowctl.stored_run import StoredRun
from flowctl.views import untraced
from flowctl.workflow import Workflow


def workflow_json(workflow: Workflow[Any, Any], *, partial: bool = False) -> dict[str, Any]:
    """A workflow as lists and the Studio show it; schemas are JSON Schema as text.

    In `partial` form, for long lists, steps and schemas are left out.
    """
    shown: dict[str, Any] = {
        "name": workflow.id,
        "description": workflow.description,
        "steps": {},
        "allSteps": {},
        "stepCount": len(workflow.steps),
        "stepGraph": workflow.serialized_step_graph,
        "options": {"validateInputs": workflow.options.validate_inputs},
        "origin": "code",
    }
    return shown if partial else shown | _definition_json(workflow)


def _definition_json(workflow: Workflow[Any, Any]) -> dict[str, Any]:
    return {
        "steps": {id: step_json(step) for id, step in workflow.steps.items()},
        "allSteps": all_steps(workflow),
        "inputSchema": schema_text(workflow.schemas.input),
        "outputSchema": schema_text(workflow.schemas.output),
        "stateSchema": schema_text(workflow.schemas.state),
        "requestContextSchema": schema_text(workflow.schemas.request_context),
        "metadata": workflow.metadata,
    }


def all_steps(workflow: Workflow[Any, Any], prefix: str = "") -> dict[str, Any]:
    """The steps with those of nested workflows, which are named `outer.inner`."""
    shown: dict[str, Any] = {}
    for id, step in workflow.steps.items():
        shown[f"{prefix}{id}"] = step_json(step)
        if isinstance(step, Workflow):
            shown |= all_steps(step, f"{prefix}{id}.")
    return shown


def step_json(step: Step[Any, Any] | Workflow[Any, Any]) -> dict[str, Any]:
    """A step as a workflow shows it."""
    return {
        "id": step.id,
        "description": step.description,
        "inputSchema": schema_text(step.schemas.input),
        "outputSchema": schema_text(step.schemas.output),
        "resumeSchema": schema_text(step.schemas.resume),
        "suspendSchema": schema_text(step.schemas.suspend),
        "stateSchema": schema_text(step.schemas.state),
        "isWorkflow": isinstance(step, Workflow),
        "metadata": step.metadata,
    }


def schema_text(schema: Any) -> str | None:
    """A schema in the API's form: `{"json": JSON Schema}` as text."""
    return None if schema is None else orjson.dumps({"json": schema.json_schema()}).decode()


def run_json(run: StoredRun, fields: Collection[str] | None = None) -> dict[str, Any]:
    """One run in detail, with the tracebacks it has; `fields` keeps some of what is optional."""
    snapshot = run.snapshot
    detail: dict[str, Any] = {
        "payload": snapshot.input,
        "initialState": snapshot.state,
        "steps": {key: r.to_json(stack=True) for key, r in snapshot.records.items() if "[" not in key},
        "activeStepsPath": snapshot.header_json()["activeStepsPath"],
        "serializedStepGraph": snapshot.serialized_step_graph,
        "suspendedPaths": snapshot.suspended_paths,
        "waitingPaths": {},
        "resumeLabels": snapshot.resume_labels,
        "stepExecutionPath": snapshot.step_execution_path,
    }
    if snapshot.status == "success":
        detail["result"] = snapshot.result
    if snapshot.error is not None:
        detail["error"] = snapshot.error.to_json(stack=True)
    identity = {
        "runId": run.run_id,
        "workflowName": run.workflow_id,
        "resourceId": run.resource_id,
        "createdAt": run.created_at,
        "updatedAt": run.updated_at,
        "status": run.status,
    }
    return identity | {key: value for key, value in detail.items() if fields is None or key in fields}


def stored_run(detail: Mapping[str, Any]) -> StoredRun:
    """The run of what `run_json` made of it, as `get_workflow_run_by_id` answers it."""
    context = {**detail.get("steps", {}), "input": detail.get("payload")}
    snapshot = {**detail, "context": context, "value": detail.get("initialState")}
    run = StoredRun.from_json({**detail, "snapshot": snapshot})
    return replace(run, snapshot=untraced(run.snapshot))


def dump(value: Mapping[str, Any] | list[Any]) -> bytes:
    """JSON bytes."""
    return orjson.dumps(value)
