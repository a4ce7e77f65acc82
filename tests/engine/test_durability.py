"""What survives when processes die between any two lines."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import fastapi
import httpx
import inngest
import inngest.fast_api
import pytest
from engine_world import served, until


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.asynccontextmanager
async def engine_process(port: int, db: Path, *more: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "flowctl.engine", "--port", str(port), "--db", str(db), *more,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        assert b"ready" in await asyncio.wait_for(process.stdout.readline(), 10)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


class Counted:
    """An app whose function counts how often each step's body ran to its end."""

    def __init__(self, port: int) -> None:
        url = f"http://127.0.0.1:{port}"
        self.client = inngest.Inngest(
            app_id="d", is_production=False, api_base_url=url, event_api_base_url=url
        )
        self.bodies: dict[str, int] = {}
        self.finished: set[int] = set()
        self.asgi = fastapi.FastAPI()

        @self.client.create_function(fn_id="f", trigger=inngest.TriggerEvent(event="d/f"), retries=3)
        async def f(ctx: inngest.Context) -> None:
            run = int(ctx.event.data["i"])

            async def body(step: int) -> int:
                await asyncio.sleep(0.002)
                self.bodies[f"{run}.{step}"] = self.bodies.get(f"{run}.{step}", 0) + 1
                return step

            for step in range(4):
                await ctx.step.run(f"s{step}", body, step)
            self.finished.add(run)

        inngest.fast_api.serve(self.asgi, self.client, [f])


async def test_an_engine_killed_at_random_loses_no_event_and_finishes_every_run(tmp_path):
    port, listener, db = free_port(), socket.socket(), tmp_path / "engine.db"
    listener.bind(("127.0.0.1", 0))
    app, sent = Counted(port), 0
    app_url = f"http://127.0.0.1:{listener.getsockname()[1]}/api/inngest"
    async with served(app.asgi, listener), httpx.AsyncClient(timeout=5) as http:
        for pause in (0.0, 0.03, 0.11, 0.07):
            async with engine_process(port, db, "-u", app_url) as process:
                await until(lambda: knows_the_app(http, port), "the sync")
                events = [{"name": "d/f", "data": {"i": sent + n}} for n in range(10)]
                assert (await http.post(f"http://127.0.0.1:{port}/e/k", json=events)).status_code == 200
                sent += 10
                await asyncio.sleep(pause)  # how far the runs come before the kill is the test's variable
                process.send_signal(signal.SIGKILL)
                await process.wait()
        async with engine_process(port, db, "-u", app_url):
            await until(lambda: all_in(app.finished, sent), "the end of all runs")
    listener.close()
    await app.client._http_client._http_client.aclose()
    assert set(app.bodies) == {f"{run}.{step}" for run in range(sent) for step in range(4)}
    assert sum(app.bodies.values()) <= sent * 4 + 4 * 40  # only a step in flight at a kill may run again


async def test_of_the_starts_that_a_throttle_put_off_until_after_a_kill_one_comes_at_a_time(tmp_path):
    port, listener, db = free_port(), socket.socket(), tmp_path / "engine.db"
    listener.bind(("127.0.0.1", 0))
    app, url = Throttled(port), f"http://127.0.0.1:{port}"
    app_url = f"http://127.0.0.1:{listener.getsockname()[1]}/api/inngest"
    async with served(app.asgi, listener), httpx.AsyncClient(timeout=5) as http:
        async with engine_process(port, db, "-u", app_url) as process:
            await until(lambda: knows_the_app(http, port), "the sync")
            await http.post(f"{url}/e/k", json=[{"name": "d/f", "data": {"i": i}} for i in range(4)])
            await until(lambda: has_parked(http, url, 3), "what waits")
            process.send_signal(signal.SIGKILL)
            await process.wait()
        hours_pass(db, 3)
        async with engine_process(port, db, "-u", app_url):
            await until(lambda: all_in(set(app.started), 2), "the second start")
            await until(lambda: has_parked(http, url, 2), "what waits")
    listener.close()
    await app.client._http_client._http_client.aclose()
    assert app.started == [0, 1]


class Throttled:
    """An app whose function starts once an hour."""

    def __init__(self, port: int) -> None:
        url = f"http://127.0.0.1:{port}"
        self.client = inngest.Inngest(
            app_id="d", is_production=False, api_base_url=url, event_api_base_url=url
        )
        self.started: list[int] = []
        self.asgi = fastapi.FastAPI()
        once_an_hour = inngest.Throttle(limit=1, period=timedelta(hours=1), burst=0)

        @self.client.create_function(
            fn_id="f", trigger=inngest.TriggerEvent(event="d/f"), throttle=once_an_hour
        )
        async def f(ctx: inngest.Context) -> None:
            self.started.append(int(ctx.event.data["i"]))

        inngest.fast_api.serve(self.asgi, self.client, [f])


async def has_parked(http: httpx.AsyncClient, url: str, count: int) -> bool:
    """Whether so many starts wait, and none is under way, which a kill would repeat."""
    metrics = (await http.get(f"{url}/metrics")).text
    depth = 'flowctl_queue_depth{{state="{}"}} {}\n'.format
    return depth("parked", count) in metrics and depth("running", 0) in metrics


def hours_pass(path: Path, count: int) -> None:
    """Have an engine that is down find that so much time has passed."""
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE meters SET at = at - ?", (count * 3_600_000,))
        db.execute("UPDATE jobs SET due = due - ?1, rank = rank - ?1", (count * 3_600_000,))


async def knows_the_app(http: httpx.AsyncClient, port: int) -> bool:
    return bool((await http.get(f"http://127.0.0.1:{port}/dev")).json()["functions"])


async def all_in(finished: set[int], count: int) -> bool:
    return len(finished) == count


class Relay:
    """A TCP relay in front of an app: aborting it looks like the death of the app's process."""

    def __init__(self, port: int) -> None:
        self.port, self.open = port, set[asyncio.StreamWriter]()

    async def relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, onward = await asyncio.open_connection("127.0.0.1", self.port)
        self.open |= {writer, onward}
        await asyncio.gather(pump(reader, onward), pump(there, writer))

    def abort(self) -> None:
        for writer in self.open:
            writer.transport.abort()
        self.open.clear()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65_536):
            writer.write(data)
    writer.close()


async def test_a_run_whose_worker_died_goes_on_within_two_seconds(world):
    began, died = asyncio.Event(), asyncio.Event()

    @world.function("survivor")
    async def survivor(ctx: inngest.Context) -> str:
        async def work() -> str:
            if not died.is_set():
                began.set()
                await asyncio.wait_for(asyncio.Event().wait(), 1)
            return "done"

        return await ctx.step.run("work", work)

    await world.start()
    relay = Relay(world.listener.getsockname()[1])
    server = await asyncio.start_server(relay.relay, "127.0.0.1", 0)
    await world.register_at(server.sockets[0].getsockname()[1])
    id = await world.send("t/survivor")
    await asyncio.wait_for(began.wait(), 5)
    died.set()
    relay.abort()
    async with asyncio.timeout(2):
        assert (await world.ended(id))["output"] == "done"
    server.close()
    relay.abort()


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_stops_the_engine_cleanly(tmp_path, number):
    async with engine_process(free_port(), tmp_path / "engine.db") as process:
        process.send_signal(number)
        assert await asyncio.wait_for(process.wait(), 5) == 0


async def test_a_port_in_use_is_named_with_a_way_out():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "flowctl.engine", "--port", str(port), stderr=asyncio.subprocess.PIPE
        )
        _, err = await process.communicate()
    assert process.returncode == 4
    assert str(port) in err.decode()
    assert "--port" in err.decode()
