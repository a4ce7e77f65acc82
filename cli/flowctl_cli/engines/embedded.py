"""The embedded engine as a worker of the dev server."""

from __future__ import annotations

from pathlib import Path

from flowctl.engine import Engine, EngineConfig
from flowctl.engine.loop import fast_loop
from flowctl_cli.dev.channel import Job

loop_factory = fast_loop()


async def serve(job: Job) -> None:
    """Run it until the supervisor says to end."""
    config = EngineConfig(db=Path(job.spec["db"]), studio_url=job.spec["studio_url"])
    async with Engine(config, listener=job.sockets[0]):
        job.channel.send(loaded={"kind": "embedded"})
        job.channel.send(ready=True)
        await job.channel.until_told_to_end()
