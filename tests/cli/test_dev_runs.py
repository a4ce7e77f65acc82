"""Runs and steps under way while `flowctl dev` reloads: each is finished, none is begun twice."""

from __future__ import annotations

import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cli.conftest import Dev, family, serving
from tests.cli.test_dev import status, until

# Step a lasts until there is a file `finish`; what began, in which version, is in steps.log.
APP = """
import asyncio
from pathlib import Path
from flowctl import App, StepContext, create_step, create_workflow

VERSION = 1

def note(step):
    with Path("steps.log").open("a") as log:
        log.write(f"{step} in version {VERSION}\\n")

async def a(ctx: StepContext) -> int:
    note("a")
    while not Path("finish").exists():
        await asyncio.sleep(0.01)
    return 1

async def b(ctx: StepContext) -> int:
    note("b")
    return VERSION

inner = create_workflow(id="inner").then(create_step(id="a", execute=a)).commit()

async def starts(ctx: StepContext) -> int:
    note("outer")
    return (await (await inner.create_run()).start(input_data={})).result

last = create_step(id="b", execute=b)
slow = create_workflow(id="slow").then(create_step(id="a", execute=a)).then(last).commit()
outer = create_workflow(id="outer").then(create_step(id="starts", execute=starts)).then(last).commit()
asleep = create_workflow(id="asleep").then(last).sleep(3600_000).commit()
app = App(workflows=[slow, outer, asleep])
"""


@contextmanager
def app(folder: Path) -> Iterator[Dev]:
    (folder / "app.py").write_text(APP)
    with serving(folder) as dev:
        yield dev


def save(folder: Path, dev: Dev, version: int) -> None:
    seen = len(dev.lines)
    (folder / "app.py").write_text(APP.replace("VERSION = 1", f"VERSION = {version}"))
    dev.wait_for("reloaded app.py", after=seen)


def begun(folder: Path) -> list[str]:
    log = folder / "steps.log"
    return log.read_text().splitlines() if log.exists() else []


def holders(folder: Path) -> list[str | None]:
    """Who has the leases of runs."""
    database = sqlite3.connect(folder / ".flowctl" / "flowctl.db")
    with closing(database):
        return [owner for (owner,) in database.execute("SELECT lease_owner FROM runs")]


def start(dev: Dev, workflow: str) -> str:
    """Begin a run, and do not wait for it."""
    url = f"{dev.url}/api/workflows/{workflow}"
    run_id = str(httpx.post(f"{url}/create-run").json()["runId"])
    httpx.post(f"{url}/start?runId={run_id}", json={"inputData": {}}).raise_for_status()
    return run_id


def test_a_step_is_finished_by_the_version_that_began_it_and_the_next_one_begins_in_the_new(
    tmp_path: Path,
) -> None:
    with app(tmp_path) as dev:
        run_id = start(dev, "slow")
        until(lambda: begun(tmp_path) == ["a in version 1"])
        for version in range(2, 7):
            save(tmp_path, dev, version)
        dev.wait_for("the version before goes on with what it began: 1 step")
        (tmp_path / "finish").touch()
        until(lambda: status(tmp_path, run_id) == "success")
        assert begun(tmp_path) == ["a in version 1", "b in version 6"]


@pytest.mark.parametrize("workflow", ["slow", "outer"])
def test_who_waits_for_a_run_gets_its_result_from_the_version_that_was_asked(
    tmp_path: Path, workflow: str
) -> None:
    with app(tmp_path) as dev:
        answers: list[Any] = []
        url = f"{dev.url}/api/workflows/{workflow}/start-async"
        asking = threading.Thread(
            target=lambda: answers.append(httpx.post(url, json={"inputData": {}}, timeout=60).json())
        )
        asking.start()
        until(lambda: "a in version 1" in begun(tmp_path))
        save(tmp_path, dev, 2)
        (tmp_path / "finish").touch()
        asking.join()
    assert [(answer["status"], answer["result"]) for answer in answers] == [("success", 2)]
    assert begun(tmp_path)[-2:] == ["a in version 1", "b in version 2"]


def test_a_run_that_sleeps_goes_over_to_the_new_version_at_once(tmp_path: Path) -> None:
    with app(tmp_path) as dev:
        run_id = start(dev, "asleep")
        until(lambda: begun(tmp_path) == ["b in version 1"])
        until(lambda: status(tmp_path, run_id) == "waiting")
        [before] = holders(tmp_path)
        save(tmp_path, dev, 2)
        until(lambda: len(family(dev.process.pid)) == 2)  # the warm process and the new worker
        until(lambda: holders(tmp_path) not in ([before], [None]))
        assert status(tmp_path, run_id) == "waiting"
    assert begun(tmp_path) == ["b in version 1"]


def test_ctrl_c_waits_for_the_step_under_way_and_leaves_the_rest_of_the_run(tmp_path: Path) -> None:
    with app(tmp_path) as dev:
        run_id = start(dev, "slow")
        until(lambda: begun(tmp_path) == ["a in version 1"])
        dev.process.send_signal(signal.SIGINT)
        dev.wait_for("finishing 1 step; Ctrl-C again ends them")
        (tmp_path / "finish").touch()
        assert dev.process.wait(timeout=20) == 0
    assert begun(tmp_path)[:1] == ["a in version 1"]
    with serving(tmp_path):
        until(lambda: status(tmp_path, run_id) == "success")
    assert begun(tmp_path) == ["a in version 1", "b in version 1"]
