"""An `inngest` binary as the engine: a worker of the dev server that runs it and passes its log on."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import signal
import sys
from typing import cast

from flowctl.errors import EngineError
from flowctl_cli.dev.channel import Job
from flowctl_cli.engines.health import until_healthy

START_SECONDS = 60.0
STOP_SECONDS = 2.0
SET_PARENT_DEATH_SIGNAL = 1


async def serve(job: Job) -> None:
    """Run it until the supervisor says to end; raises EngineError when it does not come up."""
    spec = job.spec
    arguments = ["dev", "-u", spec["app_url"], "--host", "127.0.0.1", "--port", str(spec["port"])]
    process = await asyncio.create_subprocess_exec(
        spec["binary"],
        *arguments,
        "--no-discovery",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=_end_with_parent,
    )
    log = asyncio.create_task(_pass_on(cast("asyncio.StreamReader", process.stdout), job))
    try:
        ended = lambda: process.returncode is not None  # noqa: E731 - a question, asked below
        if not await until_healthy(spec["url"], within=START_SECONDS, gives_up=ended):
            how = f"ended with code {process.returncode}" if ended() else "does not answer"
            raise EngineError(f"{spec['binary']} {how}; its log is above.")
        job.channel.send(loaded={"kind": "binary"})
        job.channel.send(ready=True)
        await _until_either(
            asyncio.create_task(process.wait()), asyncio.create_task(job.channel.until_told_to_end())
        )
    finally:
        await _stop(process)
        log.cancel()


async def _until_either(*tasks: asyncio.Task[object]) -> None:
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


async def _pass_on(output: asyncio.StreamReader, job: Job) -> None:
    async for line in output:
        job.channel.send(line=line.decode(errors="replace").rstrip())


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()


def _end_with_parent() -> None:
    """Have Linux end the binary when this worker is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
