"""The workflow, on the local engine: no server, no Inngest."""

import asyncio

from flowctl import App, SQLiteStorage

from __package__.workflows import Counter, increment_workflow


def test_it_counts_to_ten() -> None:
    async def count() -> object:
        app = App(workflows=[increment_workflow], storage=SQLiteStorage(":memory:"), engine="local")
        run = await app.get_workflow("increment-workflow").create_run()
        result = await run.start({"value": 5})
        await app.stop()
        return result.result

    assert asyncio.run(count()) == Counter(value=10)
