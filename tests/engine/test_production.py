"""The engine as one machine's production server: limits, retention, drain, upgrades of its file."""

from __future__ import annotations

import asyncio
import signal
import socket
import sqlite3
import sys
from typing import Any

import httpx
import inngest
import orjson
import pytest
from engine_world import served, until
from plain_app import SDK
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from test_durability import engine_process, free_port

from flowctl.engine import Engine, EngineConfig
from flowctl.engine.flow_control import DAY_MS
from flowctl.engine.protocol import new_ulid
from flowctl.engine.retention import Retention
from flowctl.engine.statements import MIGRATIONS
from flowctl.engine.store import DatabaseError, Store
from flowctl.engine.timing import now_ms


async def test_events_above_the_bound_of_the_queue_are_refused_and_nothing_of_them_is_kept():
    async with (
        httpx.AsyncClient() as http,
        Engine(EngineConfig(port=0, max_queued=0, retention_days=None)) as engine,
    ):
        answer = await http.post(f"{engine.url}/e/k", json={"name": "t/one"})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
        assert "bound is 0" in answer.json()["error"]
        assert (await http.get(f"{engine.url}/v1/events")).json()["data"] == []
        assert "\nflowctl_refused_total 1\n" in (await http.get(f"{engine.url}/metrics")).text


def remembered(store: Store) -> tuple[int, ...]:
    tables = ("runs", "steps", "events", "meters")
    return tuple(store.db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables)


def ended_run(store: Store, started: int, ended: int | None) -> None:
    id = new_ulid(started)
    store.db.execute(
        "INSERT INTO runs (run_id, slug, function_id, event_id, event, status, started_at, ended_at) "
        "VALUES (?, 's', 'f', ?, '{}', 'Completed', ?, ?)",
        (id, id, started, ended),
    )
    store.db.execute("INSERT INTO steps (run_id, step_id, body) VALUES (?, 'a', '1')", (id,))
    store.db.execute(
        "INSERT INTO events (internal_id, id, name, body, received_at) VALUES (?, ?, 'e', '{}', ?)",
        (id, id, started),
    )
    store.db.execute(
        "INSERT INTO meters (name, at, count, until) VALUES (?, 0, 0, ?)", (id, ended or started + DAY_MS)
    )


def test_what_ended_long_ago_is_forgotten_in_batches_and_nothing_else():
    store, now = Store(None), 100 * DAY_MS
    for _ in range(150):
        ended_run(store, now - 9 * DAY_MS, now - 8 * DAY_MS)
    ended_run(store, now - 9 * DAY_MS, now - 6 * DAY_MS)
    ended_run(store, now - 9 * DAY_MS, None)
    retention = Retention(store, days=7)
    batches = []
    while count := retention.forget(now=now):
        batches.append(count)
    assert len(batches) >= 2
    assert remembered(store) == (2, 2, 0, 0)


def test_events_are_kept_for_a_day_since_their_ids_tell_duplicates():
    store, now = Store(None), 100 * DAY_MS
    ended_run(store, now - DAY_MS // 2, now - DAY_MS // 3)
    Retention(store, days=0.1).forget(now=now)
    assert remembered(store) == (0, 0, 1, 0)


async def test_an_engine_that_is_told_to_stop_lets_calls_in_flight_end(world):
    began, may_end, ended = asyncio.Event(), asyncio.Event(), []

    @world.function("slow")
    async def slow(ctx: inngest.Context) -> None:
        async def work() -> None:
            began.set()
            await may_end.wait()
            ended.append(ctx.run_id)

        await ctx.step.run("work", work)
        await ctx.step.run("next", work)

    await world.start()
    await world.send("t/slow")
    await asyncio.wait_for(began.wait(), 10)
    draining = asyncio.create_task(world.engine._executor.drain(10))
    await asyncio.sleep(0)
    may_end.set()
    await asyncio.wait_for(draining, 10)
    [(run_id, taken)] = world.engine._store.db.execute("SELECT run_id, taken FROM jobs").fetchall()
    assert (ended, taken) == ([run_id], 0)


async def test_an_engine_that_is_stopped_takes_nothing_new_and_the_next_one_goes_on_with_it(tmp_path):
    called, may_end, port = list[str](), asyncio.Event(), free_port()

    async def answer(request: Request) -> JSONResponse:
        called.append(orjson.loads(await request.body())["event"]["data"]["name"])
        await may_end.wait()
        return JSONResponse("done", headers=SDK)

    async def ended() -> Any:
        runs = (await http.get("/v1/runs")).json()["data"]
        return [run["status"] for run in runs] == ["Completed"] * 2

    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/fn"
    base, db = f"http://127.0.0.1:{port}", tmp_path / "engine.db"
    asgi = Starlette(routes=[Route("/fn", answer, methods=["POST"])])
    async with served(asgi, listener), httpx.AsyncClient(base_url=base) as http:
        async with engine_process(port, db, "--drain", "600") as process:
            await http.post("/fn/register", json=registration(url))
            await http.post("/e/k", json={"name": "u/f", "data": {"name": "first"}})
            await until(lambda: asyncio.sleep(0, called), "the call")
            process.send_signal(signal.SIGTERM)
            assert process.stdout is not None
            assert b"calls in flight" in await asyncio.wait_for(process.stdout.readline(), 10)
            sent = await http.post("/e/k", json={"name": "u/f", "data": {"name": "second"}})
            assert (sent.status_code, called) == (200, ["first"])
            may_end.set()
            assert await asyncio.wait_for(process.wait(), 30) == 0
        assert called == ["first"]
        async with engine_process(port, db):
            await until(ended, "the end of both runs")
    assert called == ["first", "second"]


async def test_a_second_signal_ends_an_engine_that_waits_for_calls(tmp_path):
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        called.set()
        await reader.read()
        writer.close()

    called, port = asyncio.Event(), free_port()
    async with (
        await asyncio.start_server(never, "127.0.0.1", 0) as app,
        httpx.AsyncClient() as http,
        engine_process(port, tmp_path / "engine.db", "--drain", "600") as process,
    ):
        url = f"http://127.0.0.1:{app.sockets[0].getsockname()[1]}/fn"
        await http.post(f"http://127.0.0.1:{port}/fn/register", json=registration(url))
        await http.post(f"http://127.0.0.1:{port}/e/k", json={"name": "u/f"})
        await asyncio.wait_for(called.wait(), 10)
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert b"calls in flight" in await asyncio.wait_for(process.stdout.readline(), 10)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 10) == 0


def registration(url: str) -> dict[str, object]:
    step = {"id": "step", "name": "step", "runtime": {"type": "http", "url": url}}
    cancel = [{"event": "u/stop", "if": "event.data.id == async.data.id"}]
    triggers = [{"event": "u/f"}]
    function = {"id": "u-f", "name": "f", "triggers": triggers, "steps": {"step": step}, "cancel": cancel}
    return {"appName": "u", "url": url, "functions": [function]}


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS) + 1))
async def test_a_file_of_each_older_version_opens_and_its_runs_go_on(tmp_path, version):
    asked = []

    async def app(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        asked.append(orjson.loads(await reader.readexactly(int(length.split(b":")[1]))))
        headers = b"x-inngest-sdk: plain\r\ncontent-length: 6\r\nconnection: close"
        writer.write(b'HTTP/1.1 200 OK\r\n%b\r\n\r\n"done"' % headers)
        writer.close()

    path = tmp_path / "engine.db"
    async with await asyncio.start_server(app, "127.0.0.1", 0) as server, httpx.AsyncClient() as http:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/fn?stepId=step"
        run_id = old_database(path, version, url)
        async with Engine(EngineConfig(port=0, db=path)) as engine:

            async def ended():
                run = (await http.get(f"{engine.url}/v1/runs/{run_id}")).json()["data"]
                return run["output"] if run["ended_at"] else None

            assert await until(ended) == "done"
    assert [request["steps"] for request in asked] == [{"a": {"data": 1}}]


def old_database(path, version: int, url: str) -> str:
    """A file as that version left it: a run with one finished step, in the middle of a call."""
    run_id = event_id = new_ulid(now_ms())
    with sqlite3.connect(path) as db:
        for script in MIGRATIONS[:version]:
            db.executescript(script)
        db.execute(f"PRAGMA user_version = {version}")
        db.execute(
            "INSERT INTO apps (name, url, body, synced_at) VALUES ('u', '', ?, 0)",
            (orjson.dumps(registration(url)),),
        )
        db.execute(
            "INSERT INTO runs (run_id, slug, function_id, event_id, event, status, started_at) "
            "VALUES (?, 'u-f', 'f', ?, ?, 'Running', 0)",
            (run_id, event_id, b'{"name": "u/f", "data": {"id": 7}}'),
        )
        db.execute("INSERT INTO steps (run_id, step_id, body) VALUES (?, 'a', ?)", (run_id, b'{"data":1}'))
        db.execute(
            "INSERT INTO jobs (run_id, target, kind, due, taken) VALUES (?, 'step', 'call', 0, 1)", (run_id,)
        )
    db.close()
    return run_id


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS) + 1))
async def test_a_run_of_an_older_version_still_hears_the_events_that_concern_it(tmp_path, version):
    path = tmp_path / "engine.db"
    run_id = old_database(path, version, "http://127.0.0.1:9/fn?stepId=step")
    with sqlite3.connect(path) as db:
        db.execute(
            "INSERT INTO pending (run_id, step_id, kind, race, event, condition) "
            "VALUES (?, 's', 'event', 0, 'u/came', 'event.data.id == async.data.id')",
            (run_id,),
        )
        if any("CREATE TABLE cancels" in script for script in MIGRATIONS[:version]):
            db.execute("INSERT INTO cancels VALUES (?, 'u/stop', NULL, NULL, '', '')", (run_id,))
    db.close()
    async with Engine(EngineConfig(port=0, db=path)) as engine, httpx.AsyncClient() as http:

        async def heard(event: str) -> Any:
            await http.post(f"{engine.url}/e/k", json={"name": event, "data": {"id": 7}})
            return (await http.get(f"{engine.url}/v0/runs/{run_id}/actions")).json()

        assert list(await heard("u/came")) == ["a", "s"]
        await heard("u/stop")
        assert (await http.get(f"{engine.url}/v1/runs/{run_id}")).json()["data"]["status"] == "Cancelled"


def test_a_file_of_a_newer_version_is_left_alone(tmp_path):
    path = tmp_path / "engine.db"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 999")
    db.close()
    with pytest.raises(DatabaseError, match="version 999"):
        Store(path)


async def test_two_engines_do_not_share_a_file(tmp_path):
    path = tmp_path / "engine.db"
    async with engine_process(free_port(), path):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "flowctl.engine", "--port", "0", "--db", str(path),
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, told = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 3
    assert "another engine uses it" in told.decode()
