"""Runs as things that are streamed, listed, canceled, deleted and taken over."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from flowctl import (
    NotActiveError,
    RunNotFoundError,
    StepContext,
    ValidationError,
    create_step,
    create_workflow,
    step,
)  # fmt: skip


@step
async def one(data: int) -> int:
    return data + 1


@step
async def two(data: int, ctx: StepContext) -> int:
    ctx.writer.write({"token": "a"})
    ctx.writer.custom({"type": "data-progress", "data": 1})
    return data + 1


async def test_a_stream_tells_each_step_in_order(register) -> None:
    workflow = create_workflow(id="w").then(one).then(two)
    await register(workflow)
    stream = (await workflow.create_run()).stream(1)
    seen = [(event.type, event.payload.get("id")) async for event in stream]
    assert seen == [
        ("workflow-start", None),
        ("workflow-step-start", "one"),
        ("workflow-step-result", "one"),
        ("workflow-step-start", "two"),
        ("workflow-step-output", None),
        ("data-progress", None),
        ("workflow-step-result", "two"),
        ("workflow-finish", None),
    ]
    assert stream.status == "success"
    assert (await stream.result()).raw_result == 3


async def test_a_late_observer_gets_all_events(register) -> None:
    workflow = create_workflow(id="w").then(one)
    await register(workflow)
    run = await workflow.create_run()
    await run.start(1)
    types = [event.type async for event in run.observe_stream()]
    assert types == ["workflow-start", "workflow-step-start", "workflow-step-result", "workflow-finish"]


async def test_foreach_streams_its_progress(register) -> None:
    workflow = create_workflow(id="w").foreach(one)
    await register(workflow)
    stream = (await workflow.create_run()).stream([1, 2, 3])
    progress = [e.payload async for e in stream if e.type == "workflow-step-progress"]
    assert [(p["completedCount"], p["totalCount"], p["currentIndex"]) for p in progress] == [
        (1, 3, 0),
        (2, 3, 1),
        (3, 3, 2),
    ]


async def test_a_nested_step_is_streamed_under_its_path(register) -> None:
    inner = create_workflow(id="inner").then(one).commit()
    workflow = create_workflow(id="w").then(inner)
    await register(workflow)
    stream = (await workflow.create_run()).stream(1)
    ids = [e.payload["id"] async for e in stream if "id" in e.payload]
    assert ids == ["inner", "inner.one", "inner.one", "inner"]


async def test_cancel_is_terminal_and_the_step_in_flight_sees_it(register) -> None:
    began = asyncio.Event()
    saw: list[bool] = []

    async def wait(ctx: StepContext[Any]) -> str:
        began.set()
        try:
            await asyncio.wait_for(ctx.abort_signal.wait(), 5)
        finally:
            saw.append(ctx.abort_signal.is_set())
        return "too late"

    workflow = create_workflow(id="w").then(create_step(id="wait", execute=wait)).then(one)
    await register(workflow)
    run = await workflow.create_run()
    starting = asyncio.create_task(run.start(1))
    await asyncio.wait_for(began.wait(), 5)
    await run.cancel()
    result = await asyncio.wait_for(starting, 5)
    assert (result.status, saw, "one" in result.steps) == ("canceled", [True], False)
    types = [event.type async for event in run.observe_stream()]
    assert types[-1] == "workflow-canceled"


async def test_cancel_ends_a_sleep(register) -> None:
    workflow = create_workflow(id="w").sleep(3_600_000)
    await register(workflow)
    run = await workflow.create_run()
    stream = run.stream(1)
    async for event in stream:
        if event.type == "workflow-step-waiting":
            await run.cancel()
    assert (await workflow.get_workflow_run_by_id(run.run_id)).status == "canceled"


async def test_runs_are_listed_newest_first_filtered_and_deleted(register) -> None:
    workflow = create_workflow(id="w").then(one)
    await register(workflow)
    for name in ("a", "b", "c"):
        await (await workflow.create_run(run_id=name, resource_id=f"user-{name}")).start(1)
    page = await workflow.list_workflow_runs(page=0, per_page=2, status="success")
    assert ([run.run_id for run in page.runs], page.total) == (["c", "b"], 3)
    assert (await workflow.list_workflow_runs(resource_id="user-a")).total == 1
    assert await workflow.delete_workflow_run_by_id("a") is True
    assert await workflow.get_workflow_run_by_id("a") is None
    assert await workflow.delete_workflow_run_by_id("a") is False


async def test_pages_and_dates_have_edges(register) -> None:
    workflow = create_workflow(id="w").then(one)
    app = await register(workflow)
    for n in (1, 2, 3, 4, 5):
        await app.storage.save_snapshot("w", f"r{n}", {"status": "success", "timestamp": min(n, 4) * 1000})

    async def listed(**filters: Any) -> tuple[str, int]:
        found = await workflow.list_workflow_runs(**filters)
        return " ".join(run.run_id for run in found.runs), found.total

    assert await listed(page=1, per_page=2) == ("r3 r2", 5)
    assert await listed(page=2, per_page=2) == ("r1", 5)
    assert await listed(page=3, per_page=2) == ("", 5)
    assert await listed(page=1) == await listed(per_page=2) == ("r5 r4 r3 r2 r1", 5)
    second, fourth = (datetime.fromtimestamp(n, UTC) for n in (2, 4))
    assert await listed(from_date=second, to_date=fourth) == ("r5 r4 r3 r2", 4)
    assert await listed(to_date=second.astimezone(timezone(timedelta(hours=9)))) == ("r2 r1", 2)
    assert await listed(from_date=fourth, to_date=second) == ("", 0)
    assert await listed(status="failed") == ("", 0)
    with pytest.raises(ValidationError, match="- page: must be 0 or more, not -1"):
        await listed(page=-1, per_page=2)
    with pytest.raises(ValidationError, match="- status: Input should be one of pending, running"):
        await listed(status="done")


async def test_a_stored_run_shows_nested_steps_by_path(register) -> None:
    inner = create_workflow(id="inner").then(one).commit()
    workflow = create_workflow(id="w").then(inner)
    await register(workflow)
    run = await workflow.create_run()
    await run.start(1)
    stored = await workflow.get_workflow_run_by_id(run.run_id)
    assert stored.snapshot.records["inner.one"].output == 2


async def test_an_unknown_run_cannot_be_canceled(register) -> None:
    workflow = create_workflow(id="w").then(one)
    await register(workflow)
    run = await workflow.create_run()
    await workflow.delete_workflow_run_by_id(run.run_id)
    with pytest.raises(RunNotFoundError):
        await run.cancel()


async def test_only_an_active_run_is_restarted(register) -> None:
    workflow = create_workflow(id="w").then(one)
    await register(workflow)
    with pytest.raises(NotActiveError):
        await (await workflow.create_run()).restart()


async def test_restart_runs_the_interrupted_step_and_none_before_it(register) -> None:
    calls: list[str] = []

    def named(id: str) -> Any:
        async def work(ctx: StepContext[int]) -> int:
            calls.append(id)
            return ctx.input_data + 1

        return create_step(id=id, execute=work)

    workflow = create_workflow(id="w").then(named("a")).then(named("b")).then(named("c"))
    app = await register(workflow)
    context = {
        "input": 1,
        "a": {"status": "success", "payload": 1, "output": 2},
        "b": {"status": "running", "payload": 2},
    }
    snapshot = {"runId": "r", "status": "running", "activePaths": [1], "context": context}
    await app.storage.save_snapshot("w", "r", snapshot)
    result = await (await workflow.create_run(run_id="r")).restart()
    assert (result.status, result.raw_result, calls) == ("success", 4, ["b", "c"])


PROJECT = """
import asyncio, os, sys
from pathlib import Path
from flowctl import App, SQLiteStorage, StepContext, create_workflow, create_step

log = Path(sys.argv[1])

def named(id):
    async def work(ctx: StepContext):
        with log.open("a") as f:
            f.write(id + "\\n")
        if id == "c" and sys.argv[2] == "die":
            os.kill(os.getpid(), 9)
        return id
    return create_step(id=id, execute=work)

workflow = create_workflow(id="w").then(named("a")).sleep(1)
workflow.then(named("b")).then(named("c")).then(named("d"))
app = App(workflows=[workflow], storage=SQLiteStorage(log.with_suffix(".db")), engine="local")

async def main():
    await app.start()
    if sys.argv[2] == "die":
        await (await workflow.create_run(run_id="r")).start("x")
    async with asyncio.timeout(20):
        async for event in (await workflow.create_run(run_id="r")).observe_stream():
            print(event.type, flush=True)
    await app.stop()

asyncio.run(main())
"""


def test_an_app_that_starts_takes_over_a_run_whose_process_was_killed(tmp_path: Path) -> None:
    script, log = tmp_path / "project.py", tmp_path / "log"
    script.write_text(PROJECT)
    died = subprocess.run([sys.executable, script, log, "die"], timeout=60, check=False)
    assert died.returncode == -signal.SIGKILL
    again = subprocess.run(
        [sys.executable, script, log, "live"], timeout=60, check=True, stdout=subprocess.PIPE
    )
    assert log.read_text().split() == ["a", "b", "c", "c", "d"]
    assert again.stdout.decode().split()[-1] == "workflow-finish"
    assert log.with_suffix(".db").exists()


async def test_of_a_run_only_the_wanted_fields_are_told(register) -> None:
    async def work(ctx: StepContext[Any]) -> dict[str, str]:
        return {"value": "result1"}

    workflow = create_workflow(id="w").then(create_step(id="step1", execute=work)).commit()
    await register(workflow)
    run = await workflow.create_run()
    await run.start("given")
    status = await workflow.get_workflow_run_by_id(run.run_id, fields=["status"])
    assert (status.status, status.steps, status.result, status.input) == ("success", {}, None, None)
    steps = await workflow.get_workflow_run_by_id(run.run_id, fields=["status", "steps"])
    assert (steps.steps["step1"].output, steps.result) == ({"value": "result1"}, None)
    with pytest.raises(ValueError, match="no field 'output'"):
        await workflow.get_workflow_run_by_id(run.run_id, fields=["output"])


async def test_whoever_waits_for_a_run_that_is_deleted_is_told(register) -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def work(ctx: StepContext[Any]) -> None:
        begun.set()
        await may_end.wait()

    workflow = create_workflow(id="w").then(create_step(id="work", execute=work)).commit()
    await register(workflow)
    run = await workflow.create_run()
    waiting = asyncio.create_task(run.start())
    observing = asyncio.create_task(run.observe_stream().result())
    await asyncio.wait_for(begun.wait(), 20)
    assert await workflow.delete_workflow_run_by_id(run.run_id)
    may_end.set()
    told = await asyncio.wait_for(asyncio.gather(waiting, observing, return_exceptions=True), 20)
    assert [type(error) for error in told] == [RunNotFoundError, RunNotFoundError]
