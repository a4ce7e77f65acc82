"""What a run tells, event by event: the same on both engines, to streams, watchers and late observers."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

import httpx
import pytest
import websockets

from flowctl import create_workflow
from flowctl.events import WorkflowEvent
from tests.workflows.event_stories import STORIES, Story, inner, same

SECONDS = 30
FINISH = "workflow-step-finish"


def shown(event: WorkflowEvent) -> str:
    """An event as the stories write it."""
    payload = event.payload
    status = payload.get("status") or payload.get("workflowStatus") or payload.get("iterationStatus") or ""
    id = payload.get("id") or (payload["stepName"] if event.type == "workflow-step-output" else "")
    return " ".join(word for word in (event.type.removeprefix("workflow-"), id, status) if word)


def with_finishes(told: list[str]) -> list[str]:
    """What watchers see: each result is followed by the step's finish."""
    seen: list[str] = []
    for event in told:
        seen.append(event)
        if event.startswith("step-result "):
            seen.append(f"step-finish {event.split()[1]}")
    return seen


class Told(list[WorkflowEvent]):
    """Collects events; tells when there are as many as expected, and leaves a moment for any more."""

    def shown(self) -> list[str]:
        return [shown(event) for event in self]

    async def complete(self, count: int) -> None:
        async with asyncio.timeout(SECONDS):
            while len(self) < count:  # noqa: ASYNC110 - the callbacks of watchers come when they come
                await asyncio.sleep(0.005)


async def play(run: Any, story: Story) -> list[WorkflowEvent]:
    """Do all that the story says; gives what the stream of its first leg told."""
    streamed: list[WorkflowEvent] = []
    if story.begin is not None:
        await story.begin(run)
    else:
        async for event in run.stream(story.input):
            streamed.append(event)
            if story.at is not None and event.type == story.at[0]:
                await story.at[1](run)
    for action in story.then:
        await action(run)
    return streamed


@contextlib.asynccontextmanager
async def realtime(app: Any, run_id: str) -> AsyncGenerator[Callable[[], Told]]:
    """Hears the run's channel on the Inngest engine, where there is one."""
    if app.inngest is None:
        yield Told
        return
    origin, told = app.inngest.api_origin.rstrip("/"), Told()
    topics = [{"channel": f"workflow:w:{run_id}", "name": "watch", "kind": "run"}]
    async with httpx.AsyncClient(timeout=SECONDS) as http:
        token = (await http.post(f"{origin}/v1/realtime/token", json=topics)).json()["jwt"]
    url = f"{origin.replace('http', 'ws', 1)}/v1/realtime/connect?token={token}"
    async with websockets.connect(url) as socket:

        async def hear() -> None:
            async for message in socket:
                told.append(WorkflowEvent.from_json(json.loads(message)["data"]))

        hearing = asyncio.create_task(hear())
        yield lambda: told
        hearing.cancel()


@pytest.mark.parametrize("name", STORIES)
async def test_events_come_in_the_same_order_everywhere(register, name: str) -> None:
    story = STORIES[name]()
    app = await register(story.workflow)
    run, watched = await story.workflow.create_run(), Told()
    unwatch = run.watch(watched.append)
    async with realtime(app, run.run_id) as heard:
        streamed = await play(run, story)
        expected = with_finishes(story.told)
        await watched.complete(len(expected))
        if app.inngest is not None:
            await heard().complete(len(expected))
            assert heard().shown() == expected
    unwatch()
    assert watched.shown() == expected
    if story.begin is None:
        assert [shown(event) for event in streamed] == [e.strip() for e in story.legs[0].split(",")]
    assert [odd for event in watched if (odd := odd_payload(event))] == []
    late = [shown(e) async for e in run.observe_stream()] if story.told[-1] not in RESTING else story.told
    assert late == story.told


RESTING = {"finish suspended", "finish paused"}
RECORD = {"id", "stepName", "status", "payload", "startedAt"}
PROGRESS = {"id", "stepName", "completedCount", "totalCount", "currentIndex", "iterationStatus"}
FINISHED = {"workflowStatus", "metadata", "output"}
KEYS: Mapping[str, set[str]] = {
    "start": {"workflowId"},
    "step-start running": RECORD,
    "step-result success": RECORD | {"output", "endedAt"},
    "step-result failed": RECORD | {"error", "endedAt"},
    "step-suspended suspended": RECORD | {"suspendPayload", "suspendedAt"},
    "step-waiting waiting": RECORD | {"metadata"},
    "step-progress success": PROGRESS | {"iterationOutput"},
    "step-progress suspended": PROGRESS,
    "step-progress failed": PROGRESS,
    "step-finish": {"id", "stepName", "metadata"},
    "step-output": {"output", "runId", "stepName"},
    "finish success": FINISHED | {"finalWorkflowResult"},
    "finish failed": FINISHED,
    "finish suspended": FINISHED,
    "finish paused": FINISHED,
    "paused": set(),
    "canceled": set(),
}
OF_LATER_LEGS = {"resumePayload", "resumedAt"}
MAY_HAVE = {"stepCallId", "metadata"} | OF_LATER_LEGS
"""Blocks run no code, so they have no call; loops have metadata; what was resumed says with what."""


def odd_payload(event: WorkflowEvent) -> str | None:
    """What is wrong with the keys of an event's payload."""
    type, _, rest = shown(event).partition(" ")
    kind = f"{type} {rest.rpartition(' ')[2]}" if type not in {"step-finish", "step-output"} else type
    if event.custom:
        return None
    wanted, got = KEYS[kind.strip()], set(event.payload)
    allowed = MAY_HAVE if "id" in wanted else set()
    return None if wanted <= got <= wanted | allowed else f"{shown(event)}: {sorted(got ^ wanted)}"


@pytest.mark.parametrize("name", ["writer", "suspend and resume", "suspend and resume in a nested workflow"])
async def test_events_say_where_they_come_from(register, name: str) -> None:
    story = STORIES[name]()
    await register(story.workflow)
    run = await story.workflow.create_run()
    sent = [event.to_json() async for event in run.stream(story.input)]
    origins = {one["type"]: one["from"] for one in sent}
    users = {"workflow-step-output", "data-progress"}
    assert {type for type, origin in origins.items() if origin == "USER"} == users & set(origins)
    assert {one["runId"] for one in sent} == {run.run_id}
    assert sent[0]["type"] == "workflow-start"
    assert sent[-1]["type"] == "workflow-finish"


async def test_a_call_has_one_id_from_its_start_to_its_finish(register) -> None:
    workflow = (
        create_workflow(id="w").then(inner(same("a"))).dowhile(same("b"), lambda c: c.iteration_count < 2)
    )
    await register(workflow)
    run, watched = await workflow.create_run(), Told()
    unwatch = run.watch(watched.append)
    await run.start(1)
    await watched.complete(14)
    unwatch()
    calls = [e.payload["stepCallId"] for e in watched if e.payload.get("id") in {"inner.a", "b"}]
    assert [calls.count(call) for call in dict.fromkeys(calls)] == [3, 3, 3]


async def test_progress_of_items_that_run_at_once_counts_them_all(register) -> None:
    workflow = create_workflow(id="w").foreach(same("a"), concurrency=2)
    await register(workflow)
    told = [e.payload async for e in (await workflow.create_run()).stream([7, 8, 9])]
    progress = [payload for payload in told if "iterationStatus" in payload]
    assert [(p["completedCount"], p["totalCount"], p["iterationStatus"]) for p in progress] == [
        (1, 3, "success"), (2, 3, "success"), (3, 3, "success"),
    ]  # fmt: skip
    assert sorted((p["currentIndex"], p["iterationOutput"]) for p in progress) == [(0, 7), (1, 8), (2, 9)]
