"""What a workflow is to Inngest: its functions as they are registered, its runs begun by hand or by cron."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import inngest
from pydantic import BaseModel

from flowctl import StepContext, create_step, create_workflow
from tests.runners.front import Served, on_engine


class Order(BaseModel):
    value: int


class PaymentError(Exception):
    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


async def same(ctx: StepContext[Any]) -> Any:
    return ctx.input_data


same_step = create_step(id="same", execute=same)


def registered(served: Served) -> dict[str, dict[str, Any]]:
    return {function["id"]: function for function in served.front.registered}


async def ended_runs(served: Served, workflow_id: str) -> list[Any]:
    """The runs of a workflow, once there is one that has ended."""
    async with asyncio.timeout(20):
        while True:
            runs = (await served.app.get_workflow(workflow_id).list_workflow_runs()).runs
            if runs and runs[0].status not in {"pending", "running"}:
                return runs
            await asyncio.sleep(0.01)


async def function_run(served: Served, event_id: str) -> dict[str, Any]:
    """The function run of an event, once it has ended."""
    async with asyncio.timeout(20):
        while True:
            answer = await served.front.http.get(f"{served.engine.url}/v1/events/{event_id}/runs")
            if (runs := answer.json()["data"]) and runs[0]["ended_at"]:
                return runs[0]
            await asyncio.sleep(0.01)


async def test_flow_control_and_crons_reach_the_engine_as_they_were_given():
    minute = timedelta(minutes=1)
    workflow = create_workflow(
        id="w",
        concurrency=[inngest.Concurrency(limit=3, key="event.data.resourceId")],
        throttle=inngest.Throttle(limit=5, period=minute),
        debounce=inngest.Debounce(period=minute),
        priority=inngest.Priority(run="event.data.inputData.value"),
        idempotency="event.data.resourceId",
        timeouts=inngest.Timeouts(start=minute),
        cron=["TZ=Europe/Vienna 0 9 * * 1", "0 0 * * *"],
        cron_input={"value": 1},
    )
    async with on_engine(workflows=[workflow.then(same_step).commit()]) as served:
        first, later = registered(served)["test-workflow.w"], registered(served)["test-workflow.w.continue"]
        assert first["throttle"]["limit"] == 5
        assert first["debounce"]["period"] == "1m"
        assert first["priority"]["run"] == "event.data.inputData.value"
        assert first["idempotency"] == "event.data.resourceId"
        assert first["timeouts"]["start"] == "1m"
        assert [t.get("cron") for t in first["triggers"]] == [None, *workflow.options.cron]
        assert first["concurrency"] == later["concurrency"]
        kept = {"throttle", "debounce", "priority", "idempotency", "timeouts", "rateLimit", "singleton"}
        assert [name for name in kept if later.get(name)] == []
        assert [t["event"] for t in later["triggers"]] == ["workflow.w.continue"]
        for function in (first, later):
            assert function["cancel"][0]["event"] == "cancel.workflow.w"
            assert function["steps"]["step"]["retries"]["attempts"] > 0


async def test_a_run_by_hand_has_the_engines_run_id_and_takes_the_dashboards_payload():
    workflow = create_workflow(id="w", input_schema=Order).then(same_step).commit()
    async with on_engine(workflows=[workflow]) as served:
        event = inngest.Event(name="workflow.w", data={"inputData": {"value": 5}})
        assert served.app.inngest is not None
        [event_id] = await served.app.inngest.send(event)
        [run] = await ended_runs(served, "w")
        engine_run = await function_run(served, event_id)
        assert (run.status, run.run_id) == ("success", engine_run["run_id"])
        assert engine_run["output"]["result"] == {"value": 5}


async def test_a_run_that_is_begun_without_input_as_a_cron_does_gets_the_crons_input():
    workflow = create_workflow(id="w", cron="* * * * *", cron_input={"value": 7}).then(same_step).commit()
    async with on_engine(workflows=[workflow]) as served:
        assert served.app.inngest is not None
        await served.app.inngest.send(inngest.Event(name="workflow.w", data={"cron": "* * * * *"}))
        [run] = await ended_runs(served, "w")
        assert (run.status, run.snapshot.result) == ("success", {"value": 7})


async def test_an_error_keeps_its_name_attributes_and_cause_and_its_function_run_fails():
    async def pay(ctx: StepContext[Any]) -> Any:
        try:
            raise KeyError("card")
        except KeyError as err:
            raise PaymentError("declined", 402) from err

    workflow = create_workflow(id="w").then(create_step(id="pay", execute=pay)).commit()
    async with on_engine(workflows=[workflow]) as served:
        result = await served.start("w", 1)
        assert (result.error.name, result.error.message, result.error.code) == (
            "PaymentError",
            "declined",
            402,
        )
        assert result.error.cause.name == "KeyError"
        [posted] = [step for post in served.front.posts for step in post["steps"] if "pay" in step["name"]]
        assert posted["data"]["record"]["error"]["code"] == 402


async def test_the_failure_of_an_earlier_leg_does_not_end_one_that_began_meanwhile():
    begun, told = asyncio.Event(), asyncio.Event()

    async def work(ctx: StepContext[Any]) -> Any:
        if not ctx.input_data:
            raise ValueError("broken")
        begun.set()
        async with asyncio.timeout(20):
            await told.wait()
        return "done"

    async def while_the_next_leg_runs(query: str, answer: Any) -> None:
        if "failure" in query:
            await begun.wait()
        await answer()
        if "failure" in query:
            told.set()

    workflow = create_workflow(id="w").then(create_step(id="work", execute=work)).commit()
    async with on_engine(workflows=[workflow]) as served:
        served.around = while_the_next_leg_runs
        run = await workflow.create_run()
        assert (await run.start(False)).status == "failed"
        assert (await run.time_travel("work", input_data=True)).result == "done"


async def test_ids_of_steps_are_paths():
    inner = create_workflow(id="inner").then(same_step).commit()
    workflow = (
        create_workflow(id="w")
        .then(same_step)
        .foreach(inner, concurrency=2)
        .map(lambda ctx: len(ctx.input_data), id="count")
        .dountil(create_step(id="loop", execute=same), lambda ctx: ctx.iteration_count >= 2)
        .commit()
    )
    async with on_engine(workflows=[workflow]) as served:
        assert (await served.start("w", [1, 2])).result == 2
        shown = [name for name in served.front.posted if not name.endswith(("start", "end"))]
        assert shown[0] == "0.same"
        assert set(shown[1:3]) == {"1.inner.item.0/0.same", "1.inner.item.1/0.same"}
        assert shown[3:] == ["2.count", "3.loop.iter.1", "3.loop.iter.2"]
        assert len(served.front.posted) == len(set(served.front.posted))


async def test_what_a_step_gave_is_a_step_of_the_function_run_as_people_look_at_it():
    workflow = create_workflow(id="w").then(same_step).commit()
    async with on_engine(workflows=[workflow]) as served:
        await served.start("w", {"value": 5})
        [step] = [s for post in served.front.posts for s in post["steps"] if s["name"] == "0.same"]
        assert step["op"] == "StepRun"
        assert step["data"]["record"]["output"] == {"value": 5}
        assert "payload" not in step["data"]["record"]
        assert step["timing"]["b"] >= 0


async def test_a_nested_workflow_whose_flow_control_does_not_hold_is_told(caplog):
    inner = create_workflow(id="inner", debounce=inngest.Debounce(period=timedelta(minutes=1)))
    workflow = create_workflow(id="w").then(inner.then(same_step).commit()).commit()
    async with on_engine(workflows=[workflow]):
        assert (
            "'inner' is debounced, so its flow control (debounce) holds for runs of its own only"
            in caplog.text
        )
