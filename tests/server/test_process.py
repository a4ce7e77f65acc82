"""A server as a process of its own: what it logs, and how it ends."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from flowctl.server.life import Life
from tests.server.conftest import make_app

APP = """
from flowctl import App, ServerConfig, MemoryStorage, create_step, create_workflow

async def wait(ctx):
    await ctx.abort_signal.wait()

slow = create_workflow(id="slow").then(create_step(id="wait", execute=wait)).commit()
app = App(workflows=[slow], storage=MemoryStorage(), server=ServerConfig(logs="{kind}"))
"""


@asynccontextmanager
async def process(folder: Path, kind: str) -> AsyncIterator[tuple[subprocess.Popen[str], httpx.AsyncClient]]:
    """The app under plain uvicorn, as its users run it."""
    (folder / "served.py").write_text(APP.format(kind=kind))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-m", "uvicorn", "served:app.asgi", "--fd", str(listener.fileno())]
        server = subprocess.Popen(  # noqa: ASYNC220 - it starts at once
            command, cwd=folder, pass_fds=[listener.fileno()], stderr=subprocess.PIPE, text=True
        )
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        async with httpx.AsyncClient(base_url=url, timeout=60) as http:
            yield server, http
    finally:
        server.kill()
        server.communicate()


def stopped(server: subprocess.Popen[str]) -> list[str]:
    """The lines that a server wrote, once it has ended as it was told to."""
    server.send_signal(signal.SIGTERM)
    _, errors = server.communicate(timeout=60)
    assert server.returncode in {0, -signal.SIGTERM}
    return errors.splitlines()


async def test_json_logs_have_a_line_for_each_request_and_nothing_else_but_lines_of_json(tmp_path) -> None:
    async with process(tmp_path, "json") as (server, http):
        await http.get("/api/workflows/slow", headers={"x-request-id": "r-1"})
        await http.get("/api/a%0Aforged%20line")
        lines = await asyncio.to_thread(stopped, server)
    shown = [json.loads(line) for line in lines if not line.startswith("INFO:")]  # before the app was there
    asked = [line for line in shown if line["logger"] == "flowctl.requests"]
    assert [(line["path"], line["status"]) for line in asked] == [
        ("/api/workflows/slow", 200), ("/api/a%0Aforged%20line", 404),
    ]  # fmt: skip
    assert asked[0]["requestId"] == "r-1"
    assert asked[0]["ms"] >= 0
    assert not any(line["logger"] == "uvicorn.access" for line in shown)


async def test_text_logs_are_read_by_people(tmp_path) -> None:
    async with process(tmp_path, "text") as (server, http):
        await http.get("/api/workflows/slow")
        lines = await asyncio.to_thread(stopped, server)
    asked = [line for line in lines if "/api/workflows/slow" in line]
    assert len(asked) == 1
    assert "flowctl.requests  GET /api/workflows/slow 200" in asked[0]


async def test_a_server_that_is_told_to_stop_ends_open_streams_and_then_itself(tmp_path) -> None:
    async with process(tmp_path, "json") as (server, http):
        url = "/api/workflows/slow/stream?runId=s"
        async with http.stream("POST", url, json={}) as answer:
            chunks = answer.aiter_bytes()
            await anext(chunks)
            stopping = asyncio.create_task(asyncio.to_thread(stopped, server))
            rest = b"".join([chunk async for chunk in chunks])
        await stopping
    assert b"workflow-finish" not in rest


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_also_reaches_who_waited_for_it_before(number: signal.Signals) -> None:
    told: list[int] = []
    before = signal.signal(number, lambda number, _: told.append(number))
    try:
        ours, life = signal.getsignal(number), Life(make_app())
        async with life:
            signal.raise_signal(number)
            assert (told, life.streams._closed) == ([number], True)
        assert signal.getsignal(number) is ours
    finally:
        signal.signal(number, before)
