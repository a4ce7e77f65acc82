"""The apps of docs/sdks.md, run on one engine as they stand there, in development and with keys."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from flowctl.engine import Engine, EngineConfig
from tests.node_program import FOLDER

PAGE = (Path(__file__).parents[2] / "docs" / "sdks.md").read_text()
PROGRAMS = re.findall(r"```(?:python|js)\n(.*?)```", PAGE, re.DOTALL)
NAMES = re.findall(r"^`(\S+)`, with `", PAGE, re.MULTILINE)
PORTS = ("8000", "3000", "3001")
APPS = ("stock", "shop", "counters")
SIGNING, EVENTS = "signkey-prod-" + "ab" * 32, "e" * 32
KEYS = {"INNGEST_SIGNING_KEY": SIGNING, "INNGEST_EVENT_KEY": EVENTS}


def free_ports() -> list[str]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in PORTS]
        return [str(listener.getsockname()[1]) for listener in sockets]


def written(folder: Path, ports: list[str]) -> None:
    """The programs of the page as files, with other ports."""
    (folder / "node_modules").symlink_to(FOLDER / "node_modules")
    other = dict(zip(PORTS, ports, strict=True))
    for name, program in zip(NAMES, PROGRAMS, strict=True):
        text = re.sub(r"listen\((\d+)\)", lambda shown: f"listen({other[shown[1]]})", program)
        (folder / name).write_text(text)


def commands(port: str) -> list[list[str]]:
    """What the page starts the programs with."""
    python = [sys.executable, "-m", "uvicorn", "app:app", "--port", port, "--log-level", "error"]
    return [python, *(["node", name] for name in NAMES[1:])]


@contextlib.asynccontextmanager
async def started(folder: Path, env: Mapping[str, str], port: str) -> AsyncIterator[None]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("INNGEST_")}
    processes = [
        await asyncio.create_subprocess_exec(*command, cwd=folder, env={**own, **env})
        for command in commands(port)
    ]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("keys", [{}, KEYS], ids=["development", "keys"])
async def test_the_apps_of_the_page_run_and_call_each_other(tmp_path: Path, keys: Mapping[str, str]) -> None:
    ports = free_ports()
    written(tmp_path, ports)
    urls = tuple(f"http://127.0.0.1:{port}/api/inngest" for port in ports)
    given = {"signing_keys": (SIGNING,), "event_keys": (EVENTS,)} if keys else {}
    async with (
        Engine(EngineConfig(port=0, app_urls=urls, **given)) as engine,
        started(tmp_path, {"INNGEST_BASE_URL" if keys else "INNGEST_DEV": engine.url, **keys}, ports[0]),
        httpx.AsyncClient(base_url=engine.url, headers={"authorization": f"Bearer {SIGNING}"}) as http,
        asyncio.timeout(90),
    ):
        for app in APPS:
            await answered(http, f"/v1/apps/{app}/functions", bool)
        assert await output(http, "shop/ordered", {"wanted": 2}) == "sent"
        counted = await output(http, "workflow.count", {"inputData": {"value": 0}})
        assert counted["result"]["result"] == {"value": 3}


async def output(http: httpx.AsyncClient, name: str, data: Any) -> Any:
    """What the run came to that an event begins."""
    sent = await http.post(f"/e/{EVENTS}", json={"name": name, "data": data})
    path = f"/v1/events/{sent.json()['ids'][0]}/runs"
    ended = await answered(http, path, lambda runs: runs["data"] and runs["data"][0]["ended_at"])
    return ended["data"][0]["output"]


async def answered(http: httpx.AsyncClient, path: str, is_there: Callable[[Any], Any]) -> Any:
    """What a path answers once it is what is waited for."""
    while True:
        answer = await http.get(path)
        if answer.status_code == 200 and is_there(answer.json()):
            return answer.json()
        await asyncio.sleep(0.05)
