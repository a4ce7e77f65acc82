"""Storages used from many tasks, threads, event loops and processes at once."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any

from flowctl import App, StepContext, create_workflow, step
from flowctl.storage.base import TakeUp
from tests.storage.databases import Database, begun, claim, commit, create

TASKS = 20


async def test_of_many_claims_at_once_exactly_one_wins(database: Database) -> None:
    storages = [database.storage() for _ in range(3)]
    for run_id in ("a", "b", "c"):
        await create(storages[0], run_id)
        legs = await asyncio.gather(*(claim(storages[n % 3], run_id) for n in range(TASKS)))
        assert sorted(leg for leg in legs if leg is not None) == [1]


async def test_many_tasks_commit_to_one_run_at_once(database: Database) -> None:
    storage = database.storage()
    await begun(storage)
    wrote = await asyncio.gather(
        *(commit(storage, **{f"s{n}": n, "events": [f"e{n}"]}) for n in range(TASKS))
    )
    stored = await storage.get_run("w", "r")
    assert all(wrote)
    assert {key: record.output for key, record in stored.snapshot.records.items()} == {
        f"s{n}": n for n in range(TASKS)
    }
    numbers = [number for number, _ in await storage.read_events("w", "r")]
    assert len(numbers) == TASKS
    assert numbers == sorted(numbers)


async def test_a_follower_misses_no_event_of_concurrent_commits(database: Database) -> None:
    writers, reader, seen = [database.storage() for _ in range(3)], database.storage(), [(0, None)]
    await begun(reader)
    commits = asyncio.gather(*(commit(writers[n % 3], events=[f"e{n}"]) for n in range(60)))
    while not commits.done():
        seen += await reader.read_events("w", "r", after=seen[-1][0])
    await commits
    seen += await reader.read_events("w", "r", after=seen[-1][0])
    assert len(seen) == 1 + 60


async def python(script: str, *arguments: str) -> str:
    """What a process of that script prints; it must succeed and complain of nothing."""
    pipes = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE}
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, *arguments, **pipes)
    out, err = await asyncio.wait_for(process.communicate(), 100)
    assert (process.returncode, err.decode()) == (0, "")
    return out.decode()


WRITER = """
import asyncio, sys
from flowctl import PostgresStorage, SQLiteStorage
from tests.storage.databases import claim, commit, create

async def main():
    storage, name = {source}, sys.argv[1]
    won = 0
    for number in range(25):
        await create(storage, f"run-{{number}}")
        won += await claim(storage, f"run-{{number}}") is not None
        await create(storage, f"{{name}}-{{number}}")
        await claim(storage, f"{{name}}-{{number}}")
        assert await commit(storage, f"{{name}}-{{number}}", one=name, events=["a"])
    print(won)
    await storage.close()

asyncio.run(main())
"""


async def test_two_processes_share_a_database(shared: Database) -> None:
    script = WRITER.format(source=shared.source)
    told = await asyncio.gather(*(python(script, name) for name in ("left", "right")))
    assert sum(map(int, told)) == 25  # each of the contested runs was won by one of them
    listed = await shared.storage().list_runs(per_page=200, page=0)
    assert listed.total == 75
    assert sum("one" in run.steps for run in listed.runs) == 50


async def test_two_processes_make_the_tables_at_once(shared: Database) -> None:
    script = f"""
import asyncio
from flowctl import PostgresStorage, SQLiteStorage
async def main():
    storages = [{shared.source} for _ in range(4)]
    await asyncio.gather(*(storage.open() for storage in storages))
    await asyncio.gather(*(storage.close() for storage in storages))
asyncio.run(main())
"""
    assert await asyncio.gather(python(script), python(script)) == ["", ""]
    await create(shared.storage())


async def test_an_app_works_from_several_event_loops_and_threads_at_once(database: Database) -> None:
    @step
    async def double(data: int) -> int:
        await asyncio.sleep(0)
        return data * 2

    @step
    async def ask(ctx: StepContext[int]) -> int:
        if ctx.resume_data is None:
            await ctx.suspend()
        return ctx.input_data + ctx.resume_data

    workflow = create_workflow(id="w").then(double).then(ask)
    app = App(workflows=[workflow], storage=database.storage(), engine="local")

    async def one(number: int) -> Any:
        run = await workflow.create_run()
        await run.start(number)
        return (await run.resume(resume_data=1)).raw_result

    async def some(first: int) -> None:
        results.extend(await asyncio.gather(*(one(first + n) for n in range(5))))

    results: list[int] = []
    threads = [threading.Thread(target=asyncio.run, args=(some(5 * n),)) for n in range(3)]
    for thread in threads:
        thread.start()
    await some(15)
    for thread in threads:
        await asyncio.to_thread(thread.join, 60)
    await app.stop()
    assert sorted(results) == [2 * n + 1 for n in range(20)]


async def test_once_a_run_is_taken_up_nothing_of_the_execution_before_is_stored(shared: Database) -> None:
    older, newer, has_begun = shared.storage(), shared.storage(), asyncio.Event()
    await begun(older)
    await older.take_up(TakeUp("w", "r", 1, "older"))

    async def write_until_refused() -> int:
        number = 0
        while await commit(older, execution="older", **{f"s{number}": number}):
            number += 1
            has_begun.set()
            await asyncio.sleep(0)
        return number

    writing = asyncio.create_task(write_until_refused())
    await has_begun.wait()
    await newer.take_up(TakeUp("w", "r", 1, "newer"))
    known = (await newer.get_run("w", "r")).snapshot.records
    assert len(known) == await writing
    assert (await newer.get_run("w", "r")).snapshot.records == known
