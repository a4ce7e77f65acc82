"""`flowctl start`: a bundle serves, runs its workflow on an engine elsewhere, and stops when told."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from flowctl.engine import Engine, EngineConfig
from tests.cli.conftest import FLOWCTL, flowctl


@contextmanager
def started(bundle: Path, cwd: Path, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`flowctl start` on the port of the environment, and where it serves."""
    process = subprocess.Popen(
        [*FLOWCTL, "start", "--dir", str(bundle)],
        cwd=cwd,
        env={**os.environ, **environment},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    said: list[str] = []
    with process.stderr:
        for line in process.stderr:
            said.append(line)
            if line.startswith("serving "):
                break
        assert said, "it said nothing"
        assert said[-1].startswith("serving "), "".join(said)
        yield process, said[-1].split()[1]
        if process.poll() is None:
            process.kill()
        process.wait(timeout=20)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_needs_no_engine_and_stops_with_success_on_a_signal(
    bundle: Path, tmp_path: Path, number: signal.Signals
) -> None:
    with started(bundle, tmp_path, PORT="0") as (process, url):
        assert list(httpx.get(f"{url}/api/workflows").json()) == ["increment-workflow"]
        process.send_signal(number)
        assert process.wait(timeout=20) == 0


ENDLESS = """
import asyncio, sys

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        for _ in range(2):
            kind = (await receive())["type"]
            await send({"type": kind + ".complete"})
        print("the app is closed", file=sys.stderr)
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"first", "more_body": True})
    await asyncio.Event().wait()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_requests_and_lets_the_app_close(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "flowctl.json").write_text("{}")
    (tmp_path / "server.py").write_text(ENDLESS)
    with started(tmp_path, tmp_path, PORT="0") as (process, url), httpx.stream("GET", url) as answer:
        assert next(answer.iter_bytes()) == b"first"
        process.send_signal(number)
        assert process.stderr is not None
        assert any("Shutting down" in line for line in process.stderr)
        process.send_signal(number)
        rest = process.stderr.read()
        assert (process.wait(timeout=20), "the app is closed" in rest, "Traceback" in rest) == (
            0,
            True,
            False,
        )


async def test_the_counter_runs_when_inngest_dev_names_an_engine(bundle: Path, tmp_path: Path) -> None:
    async with Engine(EngineConfig(port=0)) as engine, httpx.AsyncClient(timeout=30) as client:
        with started(bundle, tmp_path, PORT="0", INNGEST_DEV=engine.url) as (_, url):
            assert (await client.put(f"{url}/api/inngest")).status_code == 200
            ran = await client.post(
                f"{url}/api/workflows/increment-workflow/start-async", json={"inputData": {"value": 5}}
            )
            assert ran.json()["result"] == {"value": 10}


def test_a_port_in_use_and_a_missing_bundle_have_their_exit_codes(bundle: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused = flowctl("start", "--dir", str(bundle), "--port", port, cwd=tmp_path)
    assert (refused.returncode, f"127.0.0.1:{port}" in refused.stderr) == (4, True)
    missing = flowctl("start", cwd=tmp_path)
    assert (missing.returncode, "run `flowctl build`" in missing.stderr) == (3, True)
