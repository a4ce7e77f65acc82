"""The short forms of `make soak-kills` and `make soak-load`, and a queue for an app that is not there."""

from __future__ import annotations

import inngest
from engine_world import until
from soak_kills import soak
from soak_load import load


async def test_kills_of_engine_and_workers_lose_no_event_and_repeat_no_finished_step():
    outcome = await soak(kills=3, between_s=0.2)
    assert outcome.sent > 0
    assert (outcome.lost, outcome.repeated) == ([], [])


async def test_many_runs_side_by_side_all_end_well():
    async with load() as made:
        completed, _ = await made.parallel(60)
    assert completed == 60


async def test_runs_queued_behind_a_limit_do_not_hold_up_others():
    async with load() as made:
        await made.queue(500)
        [id] = await made.post(made.event("free", 3))
        assert (await made.ended(id))["status"] == "Completed"
        events = await made.http.get(f"{made.engine_url}/v1/events?name=l/one&limit=1")
        runs = await made.http.get(
            f"{made.engine_url}/v1/events/{events.json()['data'][0]['internal_id']}/runs"
        )
        assert runs.json()["data"][0]["ended_at"] is None


async def test_runs_of_an_app_that_was_out_of_reach_all_go_on_once_it_is_there(world):
    @world.function("late")
    async def late(ctx: inngest.Context) -> str:
        return "there"

    async def was_tried():
        return world.engine._executor._unreachable

    await world.register_at(world.listener.getsockname()[1])
    ids = [await world.send("t/late") for _ in range(60)]
    await until(was_tried, "a call of the app")
    await world.start()
    assert {(await world.ended(id))["output"] for id in ids} == {"there"}
