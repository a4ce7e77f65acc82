"""A run from its first event to its report: shown while it happens, then its result, error or question.

Called by the commands that make a run go on; their exit code is how it stands at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any

import typer

from flowctl.errors import FlowctlError
from flowctl_cli.backend import Backend, RunRef, Stream
from flowctl_cli.console import brief, is_interactive, is_live, result, say, say_prose, shown, style, typed
from flowctl_cli.forms import as_option, ask, choose, confirm, example, parsed_schema
from flowctl_cli.progress import shown as shown_live
from flowctl_cli.run_view import RunView
from flowctl_cli.tracebacks import say_error

LOOK_SECONDS = 1.0
EXIT_CODES = {"success": 0, "failed": 1, "canceled": 1, "suspended": 5, "paused": 5}


@dataclass(frozen=True, slots=True)
class Question:
    """What a suspended step asks: what it said, and the schema of the answer."""

    step: str
    payload: Any
    schema: Mapping[str, Any] | None

    @property
    def sample(self) -> Any:
        """Data that might answer it."""
        return {} if self.schema is None else example(self.schema)


async def follow(
    backend: Backend, run: RunRef, workflow: Mapping[str, Any], events: Stream
) -> dict[str, Any]:
    """Show the events; the run as it stands after the last one."""
    view = RunView.of(run.workflow_id, run.run_id, workflow["stepGraph"])
    try:
        async with contextlib.aclosing(events), shown_live(view) as progress, _noting(backend, run, view):
            async for event in events:
                progress.take(event)
            state = await stored(backend, run)
            view.settle(state)
    except asyncio.CancelledError:
        say(backend.interrupted(run))
        raise
    return state


@contextlib.asynccontextmanager
async def _noting(backend: Backend, run: RunRef, view: RunView) -> AsyncGenerator[None]:
    """Look now and then for what no event tells: tries of a step that failed. Terminals alone show it."""

    async def look() -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            with contextlib.suppress(FlowctlError):
                view.note(await stored(backend, run))

    looking = asyncio.create_task(look()) if is_live() else None
    try:
        yield
    finally:
        if looking is not None:
            looking.cancel()
            await asyncio.wait({looking})


async def stored(backend: Backend, run: RunRef) -> dict[str, Any]:
    """The run as it is stored."""
    found = await backend.run(run)
    return found or {"runId": run.run_id, "workflowName": run.workflow_id, "status": "deleted"}


def stands(status: str) -> str:
    """Where a run stands, as the end of a sentence."""
    return f"it has ended ({status})" if status in {"success", "failed", "canceled"} else f"it is {status}"


async def finish(
    backend: Backend, run: RunRef, workflow: Mapping[str, Any], state: dict[str, Any], *, as_json: bool
) -> int:
    """Report where a run stands; on a terminal, answer what it asks until it asks no more."""
    while not as_json and state["status"] == "suspended":
        try:
            body = answer(questions(workflow, state))
        except typer.Abort:
            report(run, workflow, state, option=backend.option, as_json=False)
            raise
        if body is None:
            break
        state = await follow(backend, run, workflow, backend.resume(run, body))
    report(run, workflow, state, option=backend.option, as_json=as_json)
    return EXIT_CODES.get(str(state["status"]), 1)


def report(
    run: RunRef, workflow: Mapping[str, Any], state: Mapping[str, Any], *, option: str, as_json: bool
) -> None:
    """Print a run: all of it as JSON, or its result alone, its error, or how it goes on.

    `option` is what the commands that are suggested need to reach the same backend.
    """
    if as_json:
        result(state)
        return
    match state["status"]:
        case "success":
            shown(state.get("result"))
        case "failed":
            say_error(state.get("error") or {})
        case "suspended":
            for question in questions(workflow, state):
                _say_question(f"{typed(run.run_id)}{option}", question)
        case "paused":
            step = _next_step(workflow, state)
            say(f"It goes on with:\n  flowctl time-travel {typed(run.run_id)}{option} --step {step}")
        case _:
            pass


def questions(workflow: Mapping[str, Any], state: Mapping[str, Any]) -> list[Question]:
    """The innermost steps that are suspended."""
    suspended = [id for id, step in state["steps"].items() if step["status"] == "suspended"]
    inner = [id for id in suspended if not any(other.startswith(f"{id}.") for other in suspended)]
    return [_question(workflow, id, state["steps"][id]) for id in inner]


def _question(workflow: Mapping[str, Any], id: str, step: Mapping[str, Any]) -> Question:
    payload = step.get("suspendPayload")
    if isinstance(payload, dict):
        payload = {key: value for key, value in payload.items() if key != "__workflow_meta"}
    known = workflow.get("allSteps") or workflow["steps"]
    return Question(id, payload or None, parsed_schema((known.get(id) or {}).get("resumeSchema")))


def answer(asked: list[Question], *, confirmed_first: bool = True) -> dict[str, Any] | None:
    """Ask the user what the run asks; None when nobody is there or it shall wait."""
    if not is_interactive() or not asked:
        return None
    say()
    for question in asked:
        _say_asked(question)
    if confirmed_first and not confirm("Resume it now?", default=True):
        return None
    question = choose("Which step?", {question.step: question for question in asked})
    return {"step": question.step, "resumeData": ask(question.schema or {})}


def _say_question(run: str, question: Question) -> None:
    _say_asked(question)
    say(f"  flowctl resume {run} --step {question.step} --data {as_option(question.sample)}")


def _say_asked(question: Question) -> None:
    told = f": {brief(question.payload)}" if question.payload else ""
    say_prose(f"{style(question.step, 'bold')} waits for an answer{told}")


def _next_step(workflow: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    return next((id for id in workflow["steps"] if id not in state["steps"]), "STEP")
