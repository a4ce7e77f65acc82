"""Saves of all kinds that `flowctl dev` meets: what editors, git and code at import do."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

import httpx
import pytest

from flowctl_cli.dev import workers
from tests.cli.conftest import family
from tests.cli.test_dev import until
from tests.cli.test_reload import ROUTES, routes, save, version_of


def written(version: int) -> str:
    return ROUTES.replace("VERSION = 1", f"VERSION = {version}")


def replaced_by_a_new_file(folder: Path) -> None:
    (folder / "app.py___jb_tmp___").write_text(written(2))
    (folder / "app.py").rename(folder / "app.py___jb_old___")
    (folder / "app.py___jb_tmp___").rename(folder / "app.py")
    (folder / "app.py___jb_old___").unlink()


def written_twice(folder: Path) -> None:
    (folder / "app.py").write_text(written(3))
    (folder / "app.py").write_text(written(2))


def written_in_two_parts(folder: Path) -> None:
    whole = written(2)
    with (folder / "app.py").open("w") as file:
        file.write(whole[:400])
        file.flush()
        time.sleep(0.08)  # longer than changes are collected for: half a file is loaded meanwhile
        file.write(whole[400:])


@pytest.mark.parametrize(
    "way", [replaced_by_a_new_file, written_twice, written_in_two_parts], ids=lambda way: way.__name__
)
def test_a_file_is_reloaded_however_it_was_saved(tmp_path: Path, way: object) -> None:
    with routes(tmp_path) as dev:
        way(tmp_path)
        until(lambda: version_of(dev) == 2)
        status = httpx.get(f"{dev.url}/api/dev").json()
        assert (status["state"], status["changed"][0]) == ("ready", "app.py")


def test_saves_while_a_worker_starts_never_end_the_one_that_serves(tmp_path: Path) -> None:
    with routes(tmp_path) as dev:
        for version in range(2, 40):
            save(tmp_path, version)
            time.sleep(0.06 + version % 10 / 500)  # at any moment of a worker's start
        until(lambda: version_of(dev) == 39)
        until(lambda: len(family(dev.process.pid)) == 2)  # the warm process and one worker
    assert "died" not in "".join(dev.lines)


def test_a_package_that_is_renamed_and_one_behind_a_link_are_noticed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    for package in (tmp_path / "project" / "shop", elsewhere):
        package.mkdir(parents=True)
        (package / "version.py").write_text("VERSION = 1\n")
    project = tmp_path / "project"
    (project / "linked").symlink_to(elsewhere)
    with routes(project) as dev:
        seen = len(dev.lines)
        imports = "from store.version import VERSION as ours\nfrom linked.version import VERSION as linked\n"
        (project / "app.py").write_text(
            imports + ROUTES.replace("VERSION = 1", "VERSION = ours * 10 + linked")
        )
        seen = dev.wait_for("No module named 'store'", after=seen)
        (project / "shop").rename(project / "store")
        until(lambda: version_of(dev) == 11)
        (elsewhere / "version.py").write_text("VERSION = 2\n")
        until(lambda: version_of(dev) == 12)


def test_a_checkout_of_many_files_is_one_reload_or_few(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / f"module{number}.py").write_text("VERSION = 1\n")
    with routes(tmp_path) as dev:
        (tmp_path / "app.py").write_text(
            "from module299 import VERSION\n" + ROUTES.replace("VERSION = 1", "")
        )
        until(lambda: "module299" in (tmp_path / "app.py").read_text() and version_of(dev) == 1)
        for number in range(300):
            (tmp_path / f"module{number}.py").write_text("VERSION = 2\n")
        until(lambda: version_of(dev) == 2)
        assert sum("reloaded" in line for line in dev.lines) < 10


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import sys\nsys.exit('no key')", "app.py:2  SystemExit: no key"),
        ("import os\nos._exit(4)", "The worker ended while it started (exit code 4)."),
        ("import asyncio\nasyncio.run(asyncio.sleep(0))", "app.py:2  RuntimeError: asyncio.run()"),
        ("import broken_dependency", "app.py:1  ZeroDivisionError: division by zero"),
    ],
)
def test_code_that_ends_the_import_is_told_with_its_place(tmp_path: Path, code: str, says: str) -> None:
    dependencies = tmp_path / "site-packages"
    dependencies.mkdir()
    (dependencies / "broken_dependency.py").write_text("1 / 0\n")
    project = tmp_path / "project"
    project.mkdir()
    with routes(project, environment={"PYTHONPATH": str(dependencies)}) as dev:
        seen = len(dev.lines)
        (project / "app.py").write_text(f"{code}\n{ROUTES}")
        dev.wait_for("the last good version goes on serving", after=seen)
        shown = "".join(dev.lines[seen:])
        assert says in shown
        assert "asyncio/base_events.py" not in shown
        assert version_of(dev) == 1


def test_threads_prints_and_loops_of_the_app_at_import_do_no_harm(tmp_path: Path) -> None:
    code = "import asyncio, threading, time\nloop = asyncio.new_event_loop()\nprint('hello')\n"
    code += "threading.Thread(target=lambda: time.sleep(600)).start()\n"
    with routes(tmp_path) as dev:
        for version in (2, 3):
            (tmp_path / "app.py").write_text(code + written(version))
            until(lambda version=version: version_of(dev) == version)
        assert dev.stop() == 0


def test_an_import_that_takes_long_is_told_with_its_place_and_given_up_at_the_next_save(
    tmp_path: Path,
) -> None:
    with routes(tmp_path) as dev:
        (tmp_path / "app.py").write_text("def hang():\n    while True:\n        pass\nhang()\n" + ROUTES)
        dev.wait_for("The app takes long to load: its import is at app.py:")
        assert version_of(dev) == 1
        save(tmp_path, 2)
        until(lambda: version_of(dev) == 2)
        until(lambda: len(family(dev.process.pid)) == 2)


async def test_an_import_that_never_ends_is_given_up_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "app.py").write_text("while True:\n    pass\n")
    spec = {"role": "flowctl_cli.dev.app_worker", "root": str(tmp_path), "app": None, "env_file": None,
            "log_level": "info", "tls": None, "debug_port": None, "environment": {}}  # fmt: skip
    told, pool, sockets = asyncio.Event(), workers.Pool(), socket.socketpair()
    worker = await pool.start(spec, sockets, lambda _: told.set())
    try:
        await told.wait()
        monkeypatch.setattr(workers, "START_SECONDS", 0.1)
        with pytest.raises(workers.WorkerFailedError, match=r"did not start .*: its import is at app\.py:"):
            await worker.until_loaded()
    finally:
        worker.kill()
        await worker.end(within=20)
        pool.close()
        for sock in sockets:
            sock.close()


def test_the_environment_of_the_next_worker_is_what_the_files_say_then(tmp_path: Path) -> None:
    source = ROUTES.replace("VERSION = 1", "VERSION = int(os.environ.get('VERSION', '1'))")
    with routes(tmp_path) as dev:
        (tmp_path / ".env").write_text("VERSION=2\n")
        (tmp_path / "app.py").write_text(source)
        until(lambda: version_of(dev) == 2)
        (tmp_path / ".env.development").write_text("VERSION=3\n")
        until(lambda: version_of(dev) == 3)
        for name in (".env", ".env.development"):
            (tmp_path / name).unlink()
        until(lambda: version_of(dev) == 1)
