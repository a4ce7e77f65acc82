from __future__ import annotations

import inngest
from engine_world import until


async def test_steps_run_in_order_and_each_once(world):
    calls = []

    @world.function("seq")
    async def seq(ctx: inngest.Context) -> int:
        async def add(id: int) -> int:
            calls.append(id)
            return id

        return sum([await ctx.step.run(f"s{i}", add, i) for i in range(3)])

    await world.start()
    assert await world.result("t/seq") == 3
    assert calls == [0, 1, 2]


async def test_parallel_steps_each_run_once_and_meet_again(world):
    calls = []

    @world.function("par")
    async def par(ctx: inngest.Context) -> list[str]:
        async def note(id: str) -> str:
            calls.append(id)
            return id

        arms = await ctx.group.parallel(tuple(lambda i=i: ctx.step.run(i, note, i) for i in "abc"))
        return [*arms, await ctx.step.run("after", note, "after")]

    await world.start()
    assert await world.result("t/par") == ["a", "b", "c", "after"]
    assert sorted(calls) == ["a", "after", "b", "c"]


async def test_a_step_that_fails_is_retried_after_the_time_it_asks_for(world):
    attempts = []

    @world.function("retry", retries=2)
    async def retry(ctx: inngest.Context) -> int:
        async def flaky() -> int:
            attempts.append(ctx.attempt)
            if len(attempts) < 3:
                raise inngest.RetryAfterError("later", 10)
            return len(attempts)

        return await ctx.step.run("flaky", flaky)

    await world.start()
    assert await world.result("t/retry") == 3
    assert attempts == [0, 1, 2]


async def test_a_step_that_used_up_its_attempts_can_be_caught(world):
    @world.function("caught", retries=0)
    async def caught(ctx: inngest.Context) -> str:
        async def bad() -> None:
            raise ValueError("no")

        try:
            await ctx.step.run("bad", bad)
        except inngest.StepError as err:
            return f"{err.name}: {err.message}"
        return "not raised"

    await world.start()
    assert await world.result("t/caught") == "ValueError: no"


async def test_a_failed_function_calls_its_failure_handler(world):
    seen = []

    async def on_failure(ctx: inngest.Context) -> None:
        seen.append((ctx.event.data["function_id"], ctx.event.data["error"]["message"]))

    @world.function("fails", retries=0, on_failure=on_failure)
    async def fails(ctx: inngest.Context) -> None:
        raise RuntimeError("boom")

    await world.start()
    run = await world.ended(await world.send("t/fails"))
    assert run["status"] == "Failed"

    async def handled():
        return seen

    assert await until(handled) == [("t-fails", "boom")]


async def test_a_wait_ends_with_the_event_that_fits_its_condition(world):
    @world.function("wait")
    async def wait(ctx: inngest.Context) -> object:
        event = await ctx.step.wait_for_event(
            "w", event="t/go", if_exp="event.data.k == async.data.k", timeout=10_000
        )
        return event.data if event else None

    await world.start()
    id = await world.send("t/wait", {"k": 2})
    run_id = (await world.runs(id))[0]["run_id"]

    async def waits():
        return any(job["kind"] == "timeout" for job in await world.get(f"/v1/runs/{run_id}/jobs"))

    await until(waits)
    await world.send("t/go", {"k": 1})
    await world.send("t/go", {"k": 2, "x": "y"})
    assert (await world.ended(id))["output"] == {"k": 2, "x": "y"}


async def test_a_wait_that_lasts_too_long_ends_with_nothing(world):
    @world.function("late")
    async def late(ctx: inngest.Context) -> str:
        event = await ctx.step.wait_for_event("w", event="t/never", timeout=1000)
        return "none" if event is None else "some"

    await world.start()
    assert await world.result("t/late") == "none"


async def test_an_invoked_function_answers_its_invoker(world):
    @world.function("child")
    async def child(ctx: inngest.Context) -> object:
        return {"doubled": ctx.event.data["v"] * 2}

    @world.function("parent")
    async def parent(ctx: inngest.Context) -> object:
        return await ctx.step.invoke("call", function=child, data={"v": 4})

    await world.start()
    assert await world.result("t/parent") == {"doubled": 8}


async def test_sleeps_wake_and_the_api_cancels(world):
    @world.function("nap")
    async def nap(ctx: inngest.Context) -> str:
        await ctx.step.sleep("zzz", int(ctx.event.data["ms"]))
        return "awake"

    await world.start()
    assert await world.result("t/nap", {"ms": 10}) == "awake"
    id = await world.send("t/nap", {"ms": 60_000})
    run_id = (await world.runs(id))[0]["run_id"]
    answer = await world.http.delete(f"{world.engine.url}/v1/runs/{run_id}")
    assert answer.status_code == 200
    assert (await world.ended(id))["status"] == "Cancelled"


async def test_a_send_that_is_repeated_with_its_seed_is_shown_twice_and_runs_once(world):
    @world.function("once")
    async def once(ctx: inngest.Context) -> None: ...

    await world.start()
    seed = {"x-inngest-event-id-seed": "1790000000000,AAECAwQFBgcICQ=="}
    body = [{"name": "t/once"}, {"name": "t/once"}]
    replies = [
        (await world.http.post(f"{world.engine.url}/e/k", json=body, headers=seed)).json()["ids"]
        for _ in range(2)
    ]
    assert replies[0] == replies[1]
    assert [len(await world.runs(id)) for id in replies[0]] == [1, 1]
    shown = [event["internal_id"] for event in await world.get("/v1/events?name=t/once")]
    assert sorted(shown) == sorted(replies[0] * 2)
