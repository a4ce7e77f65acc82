"""Long runs on Inngest: the cost of a step at the beginning of a run and at its end.

    python tests/bench/long_runs.py [--steps 10000] [--only loop|foreach|nested]

Runs a loop, a foreach and a foreach of nested workflows on the embedded engine (a process of its own) and
prints milliseconds per step over the first and the last tenth; the exit code is 1 when a run does not end as
it should, or the last tenth costs more than twice what the first did.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from array import array
from pathlib import Path
from typing import Any

import httpx
import inngest
from starlette.applications import Starlette
from starlette.routing import Route

from flowctl import App, SQLiteStorage, StepContext, create_step, create_workflow, serve

sys.path.insert(0, str(Path(__file__).parent))
from checkpoint import engine, served

TOLERATED = 2.0
times: array[float] = array("d")


async def plus_one(ctx: StepContext[Any]) -> Any:
    times.append(time.perf_counter())
    return ctx.input_data + 1


def workflows(steps: int) -> dict[str, tuple[Any, Any, Any]]:
    """By name: a workflow, its input, the result that it should have."""
    increment = create_step(id="increment", execute=plus_one)
    loop = create_workflow(id="loop").dountil(increment, lambda ctx: ctx.input_data >= steps).commit()
    items = list(range(steps))
    foreach = create_workflow(id="foreach").foreach(increment, concurrency=10).commit()
    inner = create_workflow(id="inner").then(increment).commit()
    nested = create_workflow(id="nested").foreach(inner, concurrency=10).commit()
    ended = [n + 1 for n in items]
    return {"loop": (loop, 0, steps), "foreach": (foreach, items, ended), "nested": (nested, items, ended)}


async def measure(steps: int, only: str | None, folder: Path) -> bool:
    async with engine() as url, httpx.AsyncClient() as http:
        client = inngest.Inngest(
            app_id="bench", is_production=False, api_base_url=url, event_api_base_url=url
        )
        known = workflows(steps)
        app = App(
            workflows=[w for w, _, _ in known.values()],
            inngest=client,
            storage=SQLiteStorage(folder / "long.db"),
        )
        web = Starlette(routes=[Route("/api/inngest", serve(app), methods=["GET", "POST", "PUT"])])
        async with served(web) as app_url:
            (await http.put(f"{app_url}/api/inngest")).raise_for_status()
            good = [await one(app, name, *known[name]) for name in known if only in {None, name}]
            await app.stop()
    return all(good)


async def one(app: App, name: str, workflow: Any, given: Any, expected: Any) -> bool:
    del times[:]
    began = time.perf_counter()
    run = await app.get_workflow(workflow.id).create_run()
    result = await run.start(input_data=given)
    took = time.perf_counter() - began
    tenth = len(times) // 10
    first, last = (times[tenth] - times[0]) / tenth * 1000, (times[-1] - times[-tenth - 1]) / tenth * 1000
    is_right = result.result == expected and len(times) == (
        expected if isinstance(expected, int) else len(expected)
    )
    stored = await app.storage.get_status(workflow.id, run.run_id)
    print(
        f"{name:8} {result.status:8} {len(times)} steps in {took:6.1f} s, {stored[1] if stored else 0} legs: "
        f"{first:5.2f} ms a step at first, {last:5.2f} ms at last ({last / first:4.2f} x)",
        flush=True,
    )
    return is_right and last <= first * TOLERATED


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--only", choices=["loop", "foreach", "nested"])
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        sys.exit(0 if asyncio.run(measure(asked.steps, asked.only, Path(home))) else 1)
