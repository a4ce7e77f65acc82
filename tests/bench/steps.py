"""What a step costs beyond its code: a chain of steps here, in pydantic-graph and in langgraph, side by side.

    pip install --group bench      # pydantic-graph, langgraph, langgraph-checkpoint-sqlite
    python tests/bench/steps.py [--steps 50] [--repeats 7]

Each step adds one to a number. Prints microseconds a step: the best of some repeats, which take turns. A peer
that is not installed is left out.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from flowctl import (
    App,
    MemoryStorage,
    PostgresStorage,
    SQLiteStorage,
    StepContext,
    create_step,
    create_workflow,
)

Run = Callable[[], Awaitable[Any]]


async def add(n: int) -> int:
    return n + 1


def plain(steps: int) -> Run:
    async def run() -> int:
        n = 0
        for _ in range(steps):
            n = await add(n)
        return n

    return run


def flowctl(steps: int, storage: Any) -> Run:
    async def work(ctx: StepContext[int]) -> int:
        return await add(ctx.input_data)

    workflow = create_workflow(id="chain", input_schema=int, output_schema=int)
    for number in range(steps):
        workflow.then(create_step(id=f"s{number}", input_schema=int, output_schema=int, execute=work))
    App(workflows=[workflow], storage=storage, engine="local")

    async def run() -> int:
        return (await (await workflow.create_run()).start(0)).result

    return run


def pydantic_graph(steps: int) -> Run:
    from pydantic_graph import GraphBuilder

    builder = GraphBuilder(state_type=type(None), input_type=int, output_type=int)

    async def work(ctx: Any) -> int:
        return await add(ctx.inputs)

    before: Any = builder.start_node
    for number in range(steps):
        step = builder.step(work, node_id=f"s{number}")
        builder.add(builder.edge_from(before).to(step))
        before = step
    builder.add(builder.edge_from(before).to(builder.end_node))
    graph = builder.build()

    async def run() -> Any:
        return await graph.run(state=None, inputs=0)

    return run


async def langgraph(steps: int, saver: Any) -> Run:
    from typing import TypedDict

    from langgraph.graph import END, START, StateGraph

    class State(TypedDict):
        n: int

    async def work(state: State) -> State:
        return {"n": await add(state["n"])}

    graph = StateGraph(State)
    names = [f"s{number}" for number in range(steps)]
    for name in names:
        graph.add_node(name, work)
    for one, other in zip([START, *names], [*names, END], strict=True):
        graph.add_edge(one, other)
    compiled, threads = graph.compile(checkpointer=saver), iter(range(10**9))

    async def run() -> int:
        config = {"configurable": {"thread_id": str(next(threads))}, "recursion_limit": steps + 5}
        return (await compiled.ainvoke({"n": 0}, config))["n"]

    return run


async def contenders(
    steps: int, folder: Path, stack: contextlib.AsyncExitStack, dsn: str | None
) -> dict[str, Run]:
    found = {
        "plain calls": plain(steps),
        "flowctl, memory": flowctl(steps, MemoryStorage()),
        "flowctl, SQLite": flowctl(steps, SQLiteStorage(folder / "flowctl.db")),
    }
    if dsn:
        found["flowctl, PostgreSQL"] = flowctl(steps, PostgresStorage(dsn, schema="bench_steps"))
    with contextlib.suppress(ImportError):
        found["pydantic-graph"] = pydantic_graph(steps)
    with contextlib.suppress(ImportError):
        from langgraph.checkpoint.memory import InMemorySaver
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

        saver = await stack.enter_async_context(
            AsyncSqliteSaver.from_conn_string(str(folder / "langgraph.db"))
        )
        found["langgraph, memory"] = await langgraph(steps, InMemorySaver())
        found["langgraph, SQLite"] = await langgraph(steps, saver)
    return found


async def measure(steps: int, repeats: int, dsn: str | None) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        async with contextlib.AsyncExitStack() as stack:
            running = await contenders(steps, Path(folder), stack, dsn)
            best = dict.fromkeys(running, float("inf"))
            for _ in range(repeats):
                for name, run in running.items():
                    begun = time.perf_counter()
                    assert await run() == steps, name
                    best[name] = min(best[name], (time.perf_counter() - begun) / steps)
            return best


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--dsn", help="measure PostgreSQL too")
    given = parser.parse_args()
    best = asyncio.run(measure(given.steps, given.repeats, given.dsn))
    for name, seconds in best.items():
        print(f"{name:22} {seconds * 1e6:9.1f} µs a step")
    for ours, theirs in (("flowctl, memory", "pydantic-graph"), ("flowctl, SQLite", "langgraph, SQLite")):
        if theirs in best:
            print(f"{ours} / {theirs}: {best[ours] / best[theirs]:.2f}")


if __name__ == "__main__":
    main()
