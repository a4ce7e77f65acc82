"""Flow control end to end: what starts, when, and with which events."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import inngest
from engine_world import until


class Gauge:
    """How many handlers are inside, and were at most."""

    def __init__(self) -> None:
        self.inside = self.most = self.passed = 0

    async def pass_through(self) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        await asyncio.sleep(0.01)
        self.inside -= 1
        self.passed += 1


async def test_concurrency_limits_each_key_and_lets_all_pass(world):
    gauges = {"a": Gauge(), "b": Gauge()}

    @world.function("lim", concurrency=[inngest.Concurrency(limit=2, key="event.data.k")])
    async def lim(ctx: inngest.Context) -> None:
        await gauges[ctx.event.data["k"]].pass_through()

    await world.start()
    events = [{"name": "t/lim", "data": {"k": k}} for k in "ab" * 6]
    await world.http.post(f"{world.engine.url}/e/test", json=events)

    async def all_passed():
        return sum(gauge.passed for gauge in gauges.values()) == 12

    await until(all_passed)
    assert [gauge.most for gauge in gauges.values()] == [2, 2]


async def test_a_cancelled_run_leaves_its_place_to_the_next(world):
    entered, release = [], asyncio.Event()

    @world.function("one", concurrency=[inngest.Concurrency(limit=1)])
    async def one(ctx: inngest.Context) -> None:
        entered.append(ctx.event.data["i"])
        await release.wait()

    await world.start()
    ids = [await world.send("t/one", {"i": i}) for i in range(3)]
    parked = (await world.runs(ids[1]))[0]["run_id"]

    async def first_is_in():
        return entered

    await until(first_is_in)
    await world.http.delete(f"{world.engine.url}/v1/runs/{parked}")
    release.set()
    await world.ended(ids[2])
    assert entered == [0, 2]


async def test_the_urgent_overtakes_what_waits(world):
    order, release = [], asyncio.Event()

    @world.function(
        "prio",
        concurrency=[inngest.Concurrency(limit=1)],
        priority=inngest.Priority(run="event.data.p"),
    )
    async def prio(ctx: inngest.Context) -> None:
        order.append(ctx.event.data["p"])
        await release.wait()

    await world.start()
    first = await world.send("t/prio", {"p": 0})

    async def first_is_in():
        return order

    await until(first_is_in)
    low, high = await world.send("t/prio", {"p": -5}), await world.send("t/prio", {"p": 100})
    release.set()
    for id in (first, low, high):
        await world.ended(id)
    assert order == [0, 100, -5]


async def test_a_batch_starts_once_for_as_many_events_as_it_takes_and_once_for_the_rest(world):
    batches = []

    @world.function("batch", batch_events=inngest.Batch(max_size=3, timeout=timedelta(seconds=1)))
    async def batch(ctx: inngest.Context) -> None:
        batches.append([event.data["i"] for event in ctx.events])

    await world.start()
    events = [{"name": "t/batch", "data": {"i": i}} for i in range(4)]
    await world.http.post(f"{world.engine.url}/e/test", json=events)

    async def both():
        return len(batches) == 2

    await until(both)
    assert batches == [[0, 1, 2], [3]]


async def test_a_debounce_starts_with_the_last_event(world):
    seen = []

    @world.function("deb", debounce=inngest.Debounce(period=timedelta(seconds=1)))
    async def deb(ctx: inngest.Context) -> None:
        seen.append(ctx.event.data["i"])

    await world.start()
    ids = [await world.send("t/deb", {"i": i}) for i in range(3)]
    await world.ended(ids[2])
    assert seen == [2]
    assert await world.runs(ids[0]) == []


async def test_rate_limit_and_idempotency_refuse_the_second_of_a_key(world):
    @world.function("rate", rate_limit=inngest.RateLimit(limit=1, period=60_000, key="event.data.k"))
    async def rate(ctx: inngest.Context) -> None: ...

    @world.function("idem", idempotency="event.data.k")
    async def idem(ctx: inngest.Context) -> None: ...

    await world.start()
    for name in ("t/rate", "t/idem"):
        ids = [await world.send(name, {"k": k}) for k in (1, 1, 2)]
        assert [len(await world.runs(id)) for id in ids] == [1, 0, 1]


async def test_a_singleton_skips_the_newer_or_cancels_the_older(world):
    async def sleeps(ctx: inngest.Context) -> None:
        await ctx.step.sleep("long", 60_000)

    world.function("skip", singleton=inngest.Singleton(mode="skip", key="event.data.k"))(sleeps)
    world.function("swap", singleton=inngest.Singleton(mode="cancel", key="event.data.k"))(sleeps)
    await world.start()
    skipped = [await world.send("t/skip", {"k": 1}) for _ in range(2)]
    assert [len(await world.runs(id)) for id in skipped] == [1, 0]
    swapped = [await world.send("t/swap", {"k": 1}) for _ in range(2)]
    assert (await world.ended(swapped[0]))["status"] == "Cancelled"
    assert (await world.runs(swapped[1]))[0]["ended_at"] is None


async def test_a_run_that_lasts_longer_than_its_finish_timeout_is_cancelled(world):
    @world.function("slow", timeouts=inngest.Timeouts(finish=timedelta(seconds=1)))
    async def slow(ctx: inngest.Context) -> None:
        await ctx.step.sleep("long", 60_000)

    await world.start()
    assert (await world.ended(await world.send("t/slow")))["status"] == "Cancelled"


async def test_a_cron_trigger_fires_by_itself(world):
    fired = []

    @world.function("tick", trigger=inngest.TriggerCron(cron="* * * * * *"))
    async def tick(ctx: inngest.Context) -> None:
        fired.append((ctx.event.name, ctx.event.data["cron"]))

    await world.start()

    async def twice():
        return len(fired) >= 2

    await until(twice)
    assert set(fired) == {("inngest/scheduled.timer", "* * * * * *")}
