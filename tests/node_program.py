"""Node programs of `tests/node`: each listens on a free port and writes it as `listening <port>` first."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).parent / "node"
START_S, STOP_S = 60, 10


@dataclass
class NodeProgram:
    """A running program, where it is reached and what it wrote."""

    process: asyncio.subprocess.Process
    url: str = ""
    lines: list[str] = field(default_factory=list)

    async def started(self) -> None:
        """Wait for the line with the port."""
        async for line in _lines(self.process):
            self.lines.append(line)
            if line.startswith("listening "):
                self.url = f"http://127.0.0.1:{int(line.split()[1])}"
                return
        raise AssertionError("\n".join(["the Node program ended before it listened:", *self.lines]))

    async def collect(self) -> None:
        """Keep reading, so that the program never waits for a reader."""
        async for line in _lines(self.process):
            self.lines.append(line)


@asynccontextmanager
async def node_program(name: str, env: Mapping[str, str]) -> AsyncIterator[NodeProgram]:
    """Run `tests/node/<name>` until the block ends."""
    assert (FOLDER / "node_modules").is_dir(), "the Node packages are missing: run `make node`"
    process = await asyncio.create_subprocess_exec(
        "node",
        "--experimental-websocket",  # which Node 22 has without being asked
        name,
        cwd=FOLDER,
        env=os.environ | {"NODE_NO_WARNINGS": "1"} | env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=2**24,
    )
    program = NodeProgram(process)
    try:
        await asyncio.wait_for(program.started(), START_S)
        reading = asyncio.create_task(program.collect())
        yield program
    finally:
        await _stop(process)
    await reading


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_S)
    except TimeoutError:
        process.kill()
        await process.wait()


async def _lines(process: asyncio.subprocess.Process) -> AsyncIterator[str]:
    assert process.stdout is not None
    while line := await process.stdout.readline():
        yield line.decode(errors="replace").rstrip()
