"""A database file that cannot be used, or stops to be usable while the engine runs."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import inngest
import pytest
from engine_world import until

from flowctl.engine import executor, store
from flowctl.engine.__main__ import UNUSABLE_DATABASE, main
from flowctl.engine.store import Store, explained

NOBODY = 65_534
NO_LIMIT = 2**30


def of_another_program(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE records (a)")
        db.execute("PRAGMA user_version = 3")


def of_a_newer_version(path: Path) -> None:
    Store(path).close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 999")


UNUSABLE = {
    "no database": (lambda path: path.write_bytes(b"no database" * 1000), "file is not a database"),
    "cut off": (lambda path: (Store(path).close(), path.write_bytes(path.read_bytes()[:5000])), "malformed"),
    "another program's": (of_another_program, "it is another program's (its tables: records)"),
    "of a newer version": (of_a_newer_version, "version 999"),
    "a folder": (lambda path: path.mkdir(), "unable to open database file"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_a_file_that_cannot_be_used_is_named_with_the_reason_and_stays_as_it_was(tmp_path, capsys, kind):
    make, reason = UNUSABLE[kind]
    path = tmp_path / "engine.db"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    assert main(["--port", "0", "--db", str(path)]) == UNUSABLE_DATABASE
    told = capsys.readouterr().err
    assert f"Cannot use the database '{path}': " in told
    assert reason in told
    assert (path.read_bytes() if path.is_file() else None) == before


def test_a_file_that_a_mere_reader_has_open_is_not_called_another_engines(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(store, "OPEN_SECONDS", 0.1)
    path = tmp_path / "engine.db"
    Store(path).close()
    with contextlib.closing(sqlite3.connect(path)) as reader:
        reader.execute("SELECT * FROM jobs").fetchall()
        assert main(["--port", "0", "--db", str(path)]) == UNUSABLE_DATABASE
    assert "a program that reads it, such as a SQLite shell, uses it" in capsys.readouterr().err
    Store(path).close()


def test_a_folder_that_cannot_be_made_is_named(capsys):
    assert main(["--port", "0", "--db", "/dev/null/engine.db"]) == UNUSABLE_DATABASE
    assert "Cannot use the database '/dev/null/engine.db': " in capsys.readouterr().err


@pytest.fixture
def not_root() -> Iterator[Path]:
    """A folder that everybody sees, and a user whom permissions bind."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    os.seteuid(os.getuid())
    shutil.rmtree(folder)


def as_nobody(folder: Path, mode: int) -> None:
    """Be a user whom a folder's permissions bind."""
    folder.chmod(mode)
    if os.geteuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
        os.seteuid(NOBODY)


@pytest.mark.parametrize("mode", [0o555, 0o755], ids=["folder too", "file alone"])
def test_a_file_that_may_only_be_read_is_told_and_left_alone(not_root, capsys, mode):
    path = not_root / "engine.db"
    Store(path).close()
    path.chmod(0o444)
    as_nobody(not_root, mode)
    assert main(["--port", "0", "--db", str(path)]) == UNUSABLE_DATABASE
    assert "it may only be read. Give a file of the engine's own" in capsys.readouterr().err
    assert [file.name for file in not_root.iterdir()] == ["engine.db"]


def test_a_file_in_a_folder_that_may_only_be_read_is_told(not_root, capsys):
    path = not_root / "engine.db"
    Store(path).close()
    path.chmod(0o666)
    as_nobody(not_root, 0o555)
    assert main(["--port", "0", "--db", str(path)]) == UNUSABLE_DATABASE
    assert "in a folder that it may write to" in capsys.readouterr().err


def may_grow(world: Any, pages: int) -> None:
    """How large the engine's database may become: not smaller than it is."""
    world.engine._store.db.execute(f"PRAGMA max_page_count = {pages}")


async def test_a_sender_is_told_when_the_disk_is_full_and_nothing_of_it_is_kept(world, caplog):
    may_grow(world, 1)
    large = {"name": "t/large", "data": {"text": "x" * 1_000_000}}
    answer = await world.http.post(f"{world.engine.url}/e/k", json=[large, large])
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert "database or disk is full" in answer.json()["error"]
    assert "send_events" in caplog.text
    assert "/e/k" not in caplog.text  # what senders must have may stand there
    assert await world.get("/v1/events?name=t/large") == []
    may_grow(world, NO_LIMIT)
    assert await world.send("t/large")


async def test_a_step_whose_end_could_not_be_written_is_run_again_once_there_is_room(
    world, monkeypatch, caplog
):
    monkeypatch.setattr(executor, "INTERNAL_ERROR_RETRY_MS", 20)
    ran: list[str] = []

    @world.function("large")
    async def large(ctx: inngest.Context) -> int:
        async def body() -> str:
            if not ran:
                may_grow(world, 1)
            ran.append("body")
            return "x" * 1_000_000

        return len(await ctx.step.run("step", body))

    async def failed_twice() -> bool:
        return len(ran) > 1

    await world.start()
    event_id = await world.send("t/large")
    await until(failed_twice, "the second try")
    may_grow(world, NO_LIMIT)
    assert (await world.ended(event_id))["output"] == 1_000_000
    shown = (await world.http.get(f"{world.engine.url}/metrics")).text
    assert "flowctl_database_errors_total 0" not in shown
    assert "The database failed, and is tried again: database or disk is full" in caplog.text
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(("free", "way_out"), [(0, "make room"), (10**9, "a file of the engine's own")])
def test_a_file_that_finds_no_room_on_its_disk_is_told_so(free, way_out):
    assert way_out in explained(sqlite3.OperationalError("disk I/O error"), free)


async def test_an_engine_whose_database_fails_for_a_while_goes_on_afterwards(world, monkeypatch, caplog):
    monkeypatch.setattr(executor, "INTERNAL_ERROR_RETRY_MS", 20)

    @world.function("sleeper")
    async def sleeper(ctx: inngest.Context) -> str:
        await ctx.step.sleep("nap", 100)
        return "woke"

    async def has_failed() -> bool:
        return "readonly database" in caplog.text

    await world.start()
    event_id = await world.send("t/sleeper")
    world.engine._store.db.execute("PRAGMA query_only = 1")
    await until(has_failed, "a failure")
    world.engine._store.db.execute("PRAGMA query_only = 0")
    assert (await world.ended(event_id))["output"] == "woke"


def forbid(world: Any, change: str) -> None:
    """Have the engine's database refuse a change, as an error in the engine itself would."""
    world.engine._store.db.execute(
        f"CREATE TEMP TRIGGER forbidden BEFORE {change} BEGIN SELECT RAISE(ABORT, 'forbidden'); END"
    )


@pytest.mark.parametrize(
    "change",
    [
        "INSERT ON main.steps WHEN new.name = 'step'",
        "INSERT ON main.steps WHEN new.name = 'nap'",
        "INSERT ON main.events WHEN new.name = 'inngest/function.finished'",
    ],
    ids=["in a turn", "at a timer", "when others are told of the end"],
)
async def test_a_run_that_the_engine_cannot_go_on_with_fails_by_a_named_error_and_others_go_on(
    world, caplog, change
):
    @world.function("hard")
    async def hard(ctx: inngest.Context) -> None:
        await ctx.step.sleep("nap", 20)
        await ctx.step.run("step", work)

    @world.function("easy")
    async def easy(ctx: inngest.Context) -> str:
        return await ctx.step.run("other", work)

    async def work() -> str:
        return "done"

    await world.start()
    forbid(world, change)
    run = await world.ended(await world.send("t/hard"))
    assert run["status"] == "Failed"
    assert f"in run {run['run_id']}" in run["output"]["message"]
    assert "IntegrityError: forbidden" in run["output"]["message"]
    assert caplog.text.count("Traceback") == 1
    world.engine._store.db.execute("DROP TRIGGER forbidden")
    assert await world.result("t/easy") == "done"


@pytest.mark.parametrize(
    "options",
    [
        {"batch_events": inngest.Batch(max_size=9, timeout=1000)},
        {"debounce": inngest.Debounce(period=1000)},
    ],
    ids=["batch", "debounce"],
)
async def test_a_start_that_the_engine_cannot_make_is_left_out_by_name_and_the_next_one_is_made(
    world, caplog, options
):
    @world.function("hard", **options)
    async def hard(ctx: inngest.Context) -> int:
        return len(ctx.events)

    async def is_told() -> bool:
        return f"The function t-hard is not started for what it was due for: {lost}." in caplog.text

    await world.start()
    forbid(world, "INSERT ON main.runs")
    lost = await world.send("t/hard")
    await until(is_told, "the error")
    world.engine._store.db.execute("DROP TRIGGER forbidden")
    assert await world.result("t/hard") == 1
    assert (caplog.text.count("Traceback"), await world.runs(lost)) == (1, [])


async def test_a_time_of_a_schedule_at_which_the_engine_fails_is_left_out_and_the_next_one_is_not(
    world, caplog
):
    ran: list[str] = []

    @world.function("ticks", trigger=inngest.TriggerCron(cron="* * * * * *"))
    async def ticks(ctx: inngest.Context) -> None:
        ran.append(ctx.run_id)

    async def is_told() -> bool:
        return "The function t-ticks is not started for what it was due for: the schedule" in caplog.text

    async def has_run() -> bool:
        return bool(ran)

    await world.start()
    forbid(world, "INSERT ON main.runs")
    await until(is_told, "the error")
    world.engine._store.db.execute("DROP TRIGGER forbidden")
    await until(has_run, "the next time")
