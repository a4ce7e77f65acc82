"""`should_persist_snapshot`: which states of a run are shown, and that a run goes on whatever it says."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from flowctl import DefinitionError, RunNotFoundError, StepContext, create_step
from flowctl import create_workflow as workflow_of
from tests.workflows.making import Ran, start

pytestmark = pytest.mark.every_storage


async def ask(ctx: StepContext[Any, int]) -> int:
    if ctx.resume_data is None:
        await ctx.suspend({"ask": ctx.input_data})
    return ctx.resume_data + 1


asking = create_step(id="ask", execute=ask)


def only(*statuses: str) -> Any:
    """Persists these alone."""
    return lambda info: info.workflow_status in statuses


def asks(persist: Any) -> Any:
    return workflow_of(id="w", should_persist_snapshot=persist).then(Ran().step("first")).then(asking)


async def listed(workflow: Any, **filters: Any) -> list[str]:
    found = await workflow.list_workflow_runs(page=0, per_page=10, **filters)
    assert found.total == len(found.runs)
    return [run.status for run in found.runs]


async def test_a_run_stays_shown_as_suspended_after_it_went_on(register) -> None:
    workflow = asks(only("suspended"))
    app = await register(workflow)
    run = await workflow.create_run(resource_id="ada")
    assert await listed(workflow) == []
    assert (await run.start(5)).status == "suspended"
    assert await listed(workflow) == ["suspended"]
    before = await app.storage.load_snapshot("w", run.run_id)
    assert (await run.resume("ask", 7)).result == 8
    assert await app.storage.load_snapshot("w", run.run_id) == before
    stored = await workflow.get_workflow_run_by_id(run.run_id)
    assert (stored.status, stored.resource_id, stored.steps["ask"].status) == (
        "suspended",
        "ada",
        "suspended",
    )
    assert await listed(workflow, status="suspended", resource_id="ada") == ["suspended"]
    assert await listed(workflow, status="success") == []
    assert await app.storage.count_runs(["w"], ["suspended", "success"]) == {("w", "suspended"): 1}


async def test_a_state_is_shown_from_when_it_may_be(register) -> None:
    workflow = asks(only("success"))
    app = await register(workflow)
    run = await workflow.create_run()
    await run.start(5)
    assert (await workflow.get_workflow_run_by_id(run.run_id), await listed(workflow)) == (None, [])
    await run.resume("ask", 7)
    stored = await workflow.get_workflow_run_by_id(run.run_id)
    assert (stored.status, stored.result, stored.steps["first"].output) == ("success", 8, 5)
    assert (await app.storage.load_snapshot("w", run.run_id))["status"] == "success"
    assert await listed(workflow, status="success") == ["success"]


async def test_a_run_that_is_never_shown_goes_on_as_any_other(register) -> None:
    workflow = asks(only())
    app = await register(workflow)
    run = await workflow.create_run()
    assert (await run.start(5)).status == "suspended"
    again = await workflow.create_run(run.run_id)
    assert (await again.resume("ask", 7)).result == 8
    travelled = await again.time_travel("ask", input_data=6, resume_data=1)
    assert (travelled.result, await listed(workflow)) == (2, [])
    assert await app.storage.load_snapshot("w", run.run_id) is None
    assert await workflow.delete_workflow_run_by_id(run.run_id)
    with pytest.raises(RunNotFoundError):
        await run.resume("ask", 7)


async def test_it_is_asked_about_status_and_results(register) -> None:
    seen: list[tuple[str, dict[str, Any]]] = []

    def persist(info: Any) -> bool:
        seen.append((info.workflow_status, {id: r.status for id, r in info.step_results.items()}))
        return "first" in info.step_results

    workflow = asks(persist)
    await register(workflow)
    run = await workflow.create_run()
    await run.start(5)
    await run.resume("ask", 7)
    both = {"first": "success", "ask": "success"}
    assert (seen[0], seen[1], seen[-1]) == (("pending", {}), ("running", {}), ("success", both))
    assert ("suspended", {"first": "success", "ask": "suspended"}) in seen
    assert (await workflow.get_workflow_run_by_id(run.run_id)).status == "success"


async def test_what_it_raises_is_logged_and_the_state_is_shown(register, caplog) -> None:
    def breaks(info: Any) -> bool:
        raise RuntimeError("no idea")

    workflow = asks(breaks)
    await register(workflow)
    assert (await start(workflow, 5)).status == "suspended"
    assert await listed(workflow) == ["suspended"]
    assert "should_persist_snapshot of workflow 'w' raised." in caplog.text


@pytest.mark.parametrize(("persisted", "shown"), [("suspended", ["canceled"]), ("success", [])])
async def test_a_cancellation_is_shown_if_the_run_is(register, persisted: str, shown: list[str]) -> None:
    workflow = asks(only(persisted))
    await register(workflow)
    run = await workflow.create_run()
    await run.start(5)
    await run.cancel()
    assert await listed(workflow) == shown


async def test_a_run_that_is_not_shown_is_served_over_http(register) -> None:
    workflow = asks(only())
    app = await register(workflow)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app.asgi), base_url="http://localhost"
    ) as http:
        run_id = (await http.post("/api/workflows/w/create-run")).json()["runId"]
        given = {"params": {"runId": run_id}}
        started = await http.post("/api/workflows/w/start-async", json={"inputData": 5}, **given)
        assert started.json()["status"] == "suspended"
        assert (await http.get(f"/api/workflows/w/runs/{run_id}")).status_code == 404
        body = {"step": "ask", "resumeData": 7}
        assert (await http.post("/api/workflows/w/resume-async", json=body, **given)).json()["result"] == 8


@pytest.mark.parametrize("given", [False, ask])
def test_what_cannot_be_asked_is_refused(given: Any) -> None:
    with pytest.raises(DefinitionError, match="should_persist_snapshot must be a plain function"):
        workflow_of(id="w", should_persist_snapshot=given)
