"""What the HTTP API costs: a page of runs out of 10,000, and 1,000 streams that are open.

    python -m tests.bench.http_api runs
    python -m tests.bench.http_api streams

The server is a process of its own. `runs` gives requests a second beside `/health` of the same server, which
has the cost of HTTP alone; `streams` the memory of the server before and with the streams.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil

from flowctl import App, SQLiteStorage, create_step, create_workflow

SECONDS = 5.0
CLIENTS = 8


async def wait(ctx):
    await ctx.abort_signal.wait()


async def double(ctx):
    return {"value": ctx.input_data["value"] * 2}


def make_app(database: Path) -> App:
    quick = create_workflow(id="quick").then(create_step(id="double", execute=double)).commit()
    slow = create_workflow(id="slow").then(create_step(id="wait", execute=wait)).commit()
    return App(workflows=[quick, slow], storage=SQLiteStorage(database))


def serve(database: Path) -> None:
    import socket

    import uvicorn

    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(make_app(database).asgi, log_level="error", access_log=False)
    asyncio.run(uvicorn.Server(config).serve([listener]))


@asynccontextmanager
async def server(database: Path) -> AsyncIterator[tuple[str, psutil.Process]]:
    command = [sys.executable, "-m", "tests.bench.http_api", "serve", "--database", str(database)]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    try:
        port = int(await process.stdout.readline())
        yield f"http://127.0.0.1:{port}", psutil.Process(process.pid)
    finally:
        process.terminate()
        await process.wait()


async def rate(url: str, path: str) -> float:
    """Requests a second of clients that ask one after the other; bare ones, which cost little themselves."""
    done, end, there = 0, time.perf_counter() + SECONDS, urlsplit(url)

    async def ask() -> None:
        nonlocal done
        reader, writer = await asyncio.open_connection(there.hostname, there.port)
        while time.perf_counter() < end:
            writer.write(f"GET {path} HTTP/1.1\r\nhost: {there.netloc}\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200"), head
            await reader.readexactly(int(re.search(rb"content-length: (\d+)", head)[1]))
            done += 1
        writer.close()

    await asyncio.gather(*(ask() for _ in range(CLIENTS)))
    return done / SECONDS


def cpu(process: psutil.Process) -> float:
    """Seconds of processor that a process has used."""
    times = process.cpu_times()
    return times.user + times.system


async def runs(database: Path, count: int) -> None:
    app = make_app(database)
    await app.opened()
    for n in range(count):
        await (await app.get_workflow("quick").create_run()).start({"value": n})
    await app.stop()
    async with server(database) as (url, process):
        plain = await rate(url, "/health")
        for path in ("runs", "runs?perPage=100", "runs?status=success&page=400"):
            used = cpu(process)
            asked = await rate(url, f"/api/workflows/quick/{path}")
            each = (cpu(process) - used) / (asked * SECONDS) * 1000
            print(
                f"GET …/{path:<32} {asked:7.0f} requests/s   {asked / plain:.2f} of /health "
                f"({plain:.0f}/s)   {each:.2f} ms of the server's processor each"
            )


async def streams(database: Path, count: int) -> None:
    async with server(database) as (url, process):
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=url, timeout=120, limits=limits) as http:
            await http.post("/api/workflows/slow/create-run?runId=one")
            await http.post("/api/workflows/slow/start?runId=one", json={})
            before = process.memory_info().rss
            answers = [await opened(http) for _ in range(count)]
            with_them, cpu = process.memory_info().rss, process.cpu_percent()
            await asyncio.sleep(5)
            cpu = process.cpu_percent()
            for answer, _ in answers:
                await answer.aclose()
            await http.post("/api/workflows/slow/runs/one/cancel")
    each = (with_them - before) / count / 1024
    print(
        f"{before / 2**20:.0f} MiB before, {with_them / 2**20:.0f} with {count} streams: {each:.0f} KiB each"
    )
    print(f"idle streams use {cpu:.0f} % of one processor")


async def opened(http: httpx.AsyncClient) -> tuple[httpx.Response, AsyncIterator[bytes]]:
    """A stream that has begun; its iterator has to be kept, or the connection closes."""
    request = http.build_request("GET", "/api/workflows/slow/observe?runId=one")
    answer = await http.send(request, stream=True)
    answer.raise_for_status()
    chunks = answer.aiter_raw()
    await anext(chunks)
    return answer, chunks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["runs", "streams", "serve"])
    parser.add_argument("--count", type=int)
    parser.add_argument("--database", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        database = given.database or Path(folder) / "bench.db"
        match given.what:
            case "serve":
                serve(database)
            case "runs":
                asyncio.run(runs(database, given.count or 10_000))
            case _:
                asyncio.run(streams(database, given.count or 1_000))


if __name__ == "__main__":
    main()
