"""`flowctl dev` and `invoke` on the scaffolded counter, in real processes."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from tests.cli.conftest import Dev, alive, family, flowctl, result_of, serving


def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def count(project: Path, *, start: int = 5) -> object:
    return result_of(flowctl("invoke", "--data", f'{{"value": {start}}}', cwd=project))


def test_the_counter_is_invoked_with_its_steps_shown(project: Path, dev: Dev) -> None:
    run = flowctl("invoke", "increment-workflow", "--data", '{"value": 5}', cwd=project)
    assert (run.returncode, run.stdout) == (0, '{"value": 10}\n')
    assert [f"increment #{i}" in run.stderr for i in range(1, 6)] == [True] * 5


def test_a_save_is_served_and_a_broken_one_leaves_the_last_good_version(project: Path, dev: Dev) -> None:
    workflows = project / "my_counter" / "workflows.py"
    source = workflows.read_text()
    workflows.write_text(source.replace(">= 10", ">= 12"))
    seen = dev.wait_for("reloaded workflows.py")
    assert count(project) == {"value": 12}
    workflows.write_text(source + "\nx = (\n")
    seen = dev.wait_for("the last good version goes on serving", after=seen)
    assert "SyntaxError: '(' was never closed" in "".join(dev.lines)
    assert count(project) == {"value": 12}
    workflows.write_text(source)
    dev.wait_for("reloaded workflows.py", after=seen)
    assert count(project) == {"value": 10}


def test_ctrl_c_stops_everything_that_was_started(dev: Dev) -> None:
    started = family(dev.process.pid)
    assert len(started) == 3, "the warm process, a worker, the engine"
    assert dev.stop() == 0
    until(lambda: not any(alive(pid) for pid in started))


def test_an_interrupt_stops_it_also_in_the_background_of_a_script(project: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell without job control starts it
    try:
        with serving(project) as running:
            assert running.stop() == 0
    finally:
        signal.signal(signal.SIGINT, before)


def test_no_orphan_is_left_when_the_supervisor_is_killed(dev: Dev) -> None:
    started = family(dev.process.pid)
    dev.process.kill()
    dev.process.wait()
    until(lambda: not any(alive(pid) for pid in started))


SLOW = """
import os
from pydantic import BaseModel
from flowctl import App, StepContext, create_step, create_workflow
from my_counter.client import client
from pathlib import Path

LOG = Path(__file__).parent.parent / "steps.log"

def step(name):
    async def run(ctx: StepContext) -> str:
        with LOG.open("a") as log:
            log.write(f"{name}\\n")
        return name
    return create_step(id=name, execute=run)

slow = create_workflow(id="slow").then(step("a")).sleep(1500).then(step("b")).then(step("c")).commit()
app = App(workflows=[slow], inngest=client)
"""


def test_a_run_goes_on_after_its_worker_and_its_engine_were_killed(project: Path, dev: Dev) -> None:
    seen = len(dev.lines)
    (project / "my_counter" / "app.py").write_text(SLOW)
    seen = dev.wait_for("reloaded", after=seen)
    run_id = result_of(flowctl("invoke", "slow", "--detach", cwd=project))["runId"]
    log = project / "steps.log"
    until(lambda: log.exists() and log.read_text() == "a\n")
    zygote = min(family(dev.process.pid))
    for pid in family(dev.process.pid) - {zygote}:
        os.kill(pid, signal.SIGKILL)
    dev.wait_for("The engine died (killed by SIGKILL)", after=seen)
    dev.wait_for("The worker died (killed by SIGKILL)", after=seen)
    until(lambda: status(project, run_id) == "success")
    assert log.read_text() == "a\nb\nc\n"


def status(project: Path, run_id: str) -> str:
    database = sqlite3.connect(project / ".flowctl" / "flowctl.db")
    try:
        return database.execute("SELECT status FROM runs WHERE run_id = ?", (run_id,)).fetchone()[0]
    finally:
        database.close()


def test_a_second_dev_server_of_a_project_is_refused_and_names_the_first(project: Path, dev: Dev) -> None:
    second = flowctl("dev", "--port", "0", "--engine-port", "0", cwd=project)
    assert second.returncode == 4
    assert f"process {dev.process.pid} at {dev.url}" in second.stderr
