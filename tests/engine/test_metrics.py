"""What Prometheus reads: counts, the queue as it is, and how long things took."""

from __future__ import annotations

import re
from typing import Any

import httpx
import inngest
import pytest
from engine_world import until

from flowctl.engine.metrics import Tally, exposition
from flowctl.engine.protocol import Function
from flowctl.engine.store import Store
from tests.engine.simulated_starts import Simulation

LABEL = r'[a-z]+="(?:[^"\\\n]|\\[\\"n])*"'
SAMPLE = re.compile(rf"[a-z_]+(?:\{{{LABEL}(?:,{LABEL})*\}})? [0-9.]+")


def samples(text: str) -> dict[str, str]:
    return dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))


async def read(engine: Any) -> dict[str, str]:
    async with httpx.AsyncClient() as http:
        return samples((await http.get(f"{engine.url}/metrics")).text)


async def test_what_happened_is_counted_and_what_is_queued_is_told(world):
    @world.function("sleeper")
    async def sleeper(ctx: inngest.Context) -> None:
        await ctx.step.sleep("nap", 3_600_000)

    await world.start()
    await world.send("t/sleeper")

    async def sleeps():
        shown = await read(world.engine)
        return shown if shown['flowctl_queue_depth{state="later"}'] == "1" else None

    shown = await until(sleeps, "the sleep")
    assert shown["flowctl_events_total"] == shown["flowctl_runs_started_total"] == "1"
    assert shown['flowctl_runs_open{function="t-sleeper",status="running"}'] == "1"
    assert shown['flowctl_request_seconds_bucket{le="+Inf"}'] == shown["flowctl_request_seconds_count"] == "1"
    assert shown["flowctl_queue_latency_seconds_count"] == "1"
    assert float(shown["process_start_time_seconds"]) > 1e9


async def test_a_request_that_an_app_works_on_is_in_flight(world):
    @world.function("slow")
    async def slow(ctx: inngest.Context) -> str:
        return (await read(world.engine))["flowctl_requests_in_flight"]

    await world.start()
    assert await world.result("t/slow") == "1"
    assert (await read(world.engine))["flowctl_requests_in_flight"] == "0"


def test_what_waits_since_it_is_due_shows_its_age():
    made = Simulation()
    made.take_in(0, i=1)
    shown = samples(exposition(Tally(), made.store, now=2_500))
    assert shown["flowctl_queue_oldest_due_seconds"] == "2.5"
    assert shown['flowctl_queue_depth{state="due"}'] == "1"
    assert shown['flowctl_runs_open{function="f",status="scheduled"}'] == "1"


def test_an_empty_engine_has_nothing_due():
    shown = samples(exposition(Tally(), Store(None), now=1))
    assert shown["flowctl_queue_oldest_due_seconds"] == "0"


@pytest.mark.parametrize("slug", ["plain", 'quo"te', "back\\slash", "new\nline"])
def test_every_line_is_of_the_text_format_whatever_a_function_is_called(slug):
    store = Store(None)
    store.put_run("r", Function("i", slug, "n", "a", "", {}), "e", [{"name": "e"}], now=0)
    lines = exposition(Tally(), store, now=1).splitlines()
    assert [line for line in lines if not line.startswith("# ") and not SAMPLE.fullmatch(line)] == []


def test_counting_the_queue_reads_indexes_alone():
    from flowctl.engine import rest_statements as sql

    db = Store(None).db
    for query, given in ((sql.QUEUE_DEPTH, {"now": 1}), (sql.COUNT_OPEN_RUNS, {})):
        plan = [detail for *_, detail in db.execute(f"EXPLAIN QUERY PLAN {query}", given)]
        read = [detail for detail in plan if "jobs" in detail or "runs" in detail]
        assert read
        assert all("COVERING INDEX" in detail for detail in read), read
