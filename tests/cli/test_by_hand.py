"""Runs that are begun at the engine, as from Inngest's dashboard; two dev servers side by side."""

from __future__ import annotations

import re
import subprocess
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cli.conftest import FLOWCTL, Dev, flowctl, result_of
from tests.cli.test_dev import until

WORKFLOW = "increment-workflow"


def engine_of(dev: Dev) -> str:
    found = re.search(r"engine\s+(\S+)", "".join(dev.lines))
    assert found is not None
    return found[1]


def output_of(engine: str, event_id: str) -> Any:
    runs: list[dict[str, Any]] = []

    def ended() -> bool:
        runs[:] = httpx.get(f"{engine}/v1/events/{event_id}/runs").json()["data"]
        return bool(runs) and all(run["ended_at"] for run in runs)

    until(ended)
    return runs[0]["output"]


@pytest.mark.parametrize("way", ["event", "invoke"])
def test_a_run_is_begun_by_hand_and_has_the_engines_run_id(project: Path, dev: Dev, way: str) -> None:
    engine, data = engine_of(dev), {"inputData": {"value": 5}}
    if way == "event":
        sent = httpx.post(f"{engine}/e/key", json={"name": f"workflow.{WORKFLOW}", "data": data}).json()[
            "ids"
        ][0]
    else:
        url = f"{engine}/invoke/my-counter-workflow.{WORKFLOW}"
        sent = httpx.post(url, json={"data": data}).json()["id"]
    output = output_of(engine, sent)
    assert (output["status"], output["result"]) == ("success", {"value": 10})
    stored = httpx.get(f"{dev.url}/api/workflows/{WORKFLOW}/runs/{output['runId']}").json()
    assert (stored["status"], stored["steps"]["increment"]["output"]) == ("success", {"value": 10})


def test_input_by_hand_that_does_not_fit_fails_at_once_and_says_why(project: Path, dev: Dev) -> None:
    engine = engine_of(dev)
    event = {"name": f"workflow.{WORKFLOW}", "data": {"inputData": {"value": "x"}}}
    sent = httpx.post(f"{engine}/e/key", json=event).json()["ids"][0]
    assert "value: Input should be a valid integer" in output_of(engine, sent)["message"]


def test_custom_functions_keep_their_ids_and_run(project: Path, dev: Dev) -> None:
    engine = engine_of(dev)
    sent = result_of(flowctl("send", "user/signed-up", "--data", '{"email": "ada@example.com"}', cwd=project))
    assert output_of(engine, sent["ids"][0]) == "Welcome, ada@example.com!"
    slugs = [function["slug"] for function in httpx.get(f"{engine}/dev").json()["functions"]]
    assert {"my-counter-send-welcome-email", "my-counter-process-webhook"} <= set(slugs)


def test_two_projects_are_served_side_by_side(project: Path, dev: Dev, tmp_path: Path) -> None:
    assert flowctl("create", "other", cwd=tmp_path).returncode == 0
    other = tmp_path / "other"
    workflows = other / "other" / "workflows.py"
    workflows.write_text(workflows.read_text().replace(">= 10", ">= 20"))
    arguments = [*FLOWCTL, "dev", "--port", "0", "--engine-port", "0", "--engine", "embedded"]
    with subprocess.Popen(arguments, cwd=other, stderr=subprocess.PIPE, text=True) as process:
        second = Dev(process)
        reader = threading.Thread(target=second.collect)
        reader.start()
        second.wait_for("ready in")
        results = [result_of(flowctl("invoke", "--data", '{"value": 5}', cwd=p)) for p in (project, other)]
        assert second.stop() == 0
        reader.join(timeout=10)
    assert results == [{"value": 10}, {"value": 20}]
