"""Commands about runs: in this process and on a server, on a terminal and in a pipe."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowctl_cli.run_view import RunView
from flowctl_cli.tracebacks import without_ours
from tests.cli.conftest import FLOWCTL, flowctl, result_of, serving
from tests.cli.terminal import Terminal

TEA = '{"item": "tea"}'
YES = '{"approved": true}'
ENDLESS_SECONDS = 30


@pytest.fixture
def orders(tmp_path: Path) -> Path:
    """A project whose storage is empty."""
    return Path(shutil.copytree(Path(__file__).parent / "orders", tmp_path / "orders"))


def suspended(orders: Path) -> str:
    run = flowctl("invoke", "order", "--local", "--json", "--data", TEA, cwd=orders)
    assert run.returncode == 5, run.stderr
    return str(result_of(run)["runId"])


def test_a_suspended_run_says_what_it_asks_and_how_it_goes_on(orders: Path) -> None:
    run = flowctl("invoke", "order", "--local", "--data", TEA, cwd=orders)
    assert run.returncode == 5
    assert 'review.approve waits for an answer: {"question": "May tea be ordered?"}' in run.stderr
    command = run.stderr.strip().splitlines()[-1].split("flowctl ")[1]
    assert command.endswith("--step review.approve --data '{\"approved\": true}'")


def test_resume_goes_on_by_the_first_letters_of_the_run(orders: Path) -> None:
    run = flowctl("resume", suspended(orders)[:8], "--local", "--data", YES, cwd=orders)
    assert (run.returncode, json.loads(run.stdout)) == (0, {"approved": True})


def test_data_that_does_not_fit_leaves_the_run_suspended(orders: Path) -> None:
    id = suspended(orders)
    run = flowctl("resume", id, "--local", "--data", '{"approved": "perhaps"}', cwd=orders)
    assert (run.returncode, "approved: Input should be a valid boolean" in run.stderr) == (2, True)
    shown = result_of(flowctl("runs", "show", id, "--local", "--json", cwd=orders))
    assert shown["status"] == "suspended"


def test_a_run_that_is_not_suspended_is_not_resumed(orders: Path) -> None:
    id = suspended(orders)
    flowctl("cancel", id, "--local", cwd=orders)
    run = flowctl("resume", id, "--local", "--data", YES, cwd=orders)
    assert (run.returncode, "is not suspended: it has ended (canceled)" in run.stderr) == (2, True)


def test_stdout_has_the_result_alone_whatever_the_steps_print(orders: Path) -> None:
    run = flowctl("invoke", "squares", "--local", cwd=orders)
    assert (run.returncode, run.stdout) == (0, "14\n")
    assert "printed by a step" in run.stderr
    assert "square 3/3" in run.stderr


def test_a_failed_run_shows_the_users_traceback_and_none_of_ours(orders: Path) -> None:
    run = flowctl("invoke", "broken", "--local", cwd=orders)
    assert run.returncode == 1
    assert files_of(run.stderr) == [str(orders / "app.py")]
    assert "KeyError: 'tea'" in run.stderr


def test_the_users_traceback_of_a_run_is_shown_later_and_by_a_server_too(orders: Path) -> None:
    with serving(orders) as dev:
        run = flowctl("invoke", "broken", "--json", "--url", dev.url, cwd=orders)
        id = result_of(run)["runId"]
        assert 'prices["tea"] += 1' in result_of(run)["error"]["stack"]
        for command in (("invoke", "broken", "--url", dev.url), ("runs", "show", id, "--url", dev.url)):
            assert files_of(flowctl(*command, cwd=orders).stderr) == [str(orders / "app.py")]
    assert files_of(flowctl("runs", "show", id, "--local", cwd=orders).stderr) == [str(orders / "app.py")]


def test_frames_of_a_flowctl_that_is_installed_elsewhere_are_ours_too() -> None:
    ours, asyncio, users = (f'  File "/srv/{name}.py", line 1, in f\n    f()\n' for name in (
        "lib/site-packages/flowctl/execution/steps", "lib/asyncio/tasks", "app"))  # fmt: skip
    head, error = "Traceback (most recent call last):\n", "ValueError: no"
    assert without_ours(head + asyncio + ours + users + ours + error) == head + users + error


def files_of(text: str) -> list[str]:
    """The files of the tracebacks in it."""
    return [line.split('"')[1] for line in text.splitlines() if line.lstrip().startswith("File ")]


def test_a_step_says_how_often_it_was_retried(orders: Path) -> None:
    run = flowctl("invoke", "retried", "--local", cwd=orders)
    assert (run.returncode, "2 retries  3" in run.stderr) == (0, True), run.stderr
    id = result_of(flowctl("runs", "--local", "--json", cwd=orders))["runs"][0]["runId"]
    assert "2 retries" in flowctl("runs", "show", id, "--local", cwd=orders).stderr


def test_a_step_that_is_tried_again_says_so_while_it_runs() -> None:
    view = RunView.of("w", "r", [{"type": "step", "step": {"id": "flaky"}}])
    view.take({"type": "workflow-step-start", "payload": {"stepName": "flaky", "startedAt": 1}})
    error = {"name": "ConnectionError", "message": "down"}
    failed = {"status": "failed", "error": error, "metadata": {"retryCount": 1}}
    view.note({"steps": {"flaky": failed}})
    step = view.steps["flaky"]
    assert (step.status, step.retries, step.shown) == ("running", 2, "ConnectionError: down")
    view.note({"steps": {"flaky": {"status": "running", "metadata": {"retryCount": 2}}}})
    assert step.retries == 2


def test_input_that_does_not_fit_says_what_would_and_keeps_no_run(orders: Path) -> None:
    run = flowctl("invoke", "order", "--local", "--data", "{}", cwd=orders)
    assert (run.returncode, "item: Field required" in run.stderr) == (2, True)
    assert """--data '{"item": "…"}'""" in run.stderr
    assert result_of(flowctl("runs", "--local", "--json", cwd=orders))["total"] == 0


def test_a_server_that_does_not_answer_is_named_with_the_way_out(orders: Path) -> None:
    run = flowctl("invoke", "squares", "--url", "http://127.0.0.1:9", cwd=orders)
    assert (run.returncode, "Is `flowctl dev` running?" in run.stderr) == (4, True)


def test_runs_are_listed_by_status(orders: Path) -> None:
    id = suspended(orders)
    flowctl("invoke", "squares", "--local", cwd=orders)
    listed = result_of(flowctl("runs", "list", "--status", "suspended", "--local", "--json", cwd=orders))
    assert [run["runId"] for run in listed["runs"]] == [id]


def test_a_run_is_shown_with_its_steps_and_its_question(orders: Path) -> None:
    shown = flowctl("runs", "show", suspended(orders), "--local", cwd=orders)
    assert "⏸ review.approve" in shown.stderr
    assert "flowctl resume" in shown.stderr


def test_time_travel_runs_again_from_a_step_on(orders: Path) -> None:
    id = result_of(flowctl("invoke", "squares", "--local", "--json", cwd=orders))["runId"]
    again = flowctl("time-travel", id, "--step", "total", "--data", "[4, 5]", "--local", cwd=orders)
    assert (again.returncode, again.stdout) == (0, "9\n")


def test_time_travel_asks_for_the_step_on_a_terminal_and_lists_them_elsewhere(orders: Path) -> None:
    id = result_of(flowctl("invoke", "squares", "--local", "--json", cwd=orders))["runId"]
    run = flowctl("time-travel", id, "--local", cwd=orders)
    assert (run.returncode, "one of numbers, square, total" in run.stderr) == (2, True), run.stderr
    terminal = Terminal("time-travel", id, "--local", cwd=orders)
    terminal.answer("From which step? [1]", "total")
    assert terminal.end() == 0


def test_a_step_that_is_not_there_is_named_with_one_that_is(orders: Path) -> None:
    id = suspended(orders)
    run = flowctl("time-travel", id, "--step", "review.aprove", "--local", cwd=orders)
    assert (run.returncode, "Did you mean 'review.approve'?" in run.stderr) == (2, True)


def test_a_run_is_deleted_only_when_that_is_confirmed(orders: Path) -> None:
    id = suspended(orders)
    assert flowctl("runs", "delete", id, "--local", cwd=orders).returncode == 2
    assert flowctl("runs", "delete", id, "--yes", "--local", cwd=orders).returncode == 0
    gone = flowctl("runs", "show", id, "--local", cwd=orders)
    assert (gone.returncode, "flowctl runs" in gone.stderr) == (2, True)


def test_a_killed_run_is_restarted(orders: Path) -> None:
    process = subprocess.Popen(
        [*FLOWCTL, "invoke", "endless", "--local"], cwd=orders, stderr=subprocess.PIPE, text=True
    )
    id = _when_listed(orders, "running")
    process.kill()
    process.communicate()
    (orders / "app.py").write_text(
        (orders / "app.py").read_text().replace("await asyncio.Event().wait()", "return")
    )
    run = flowctl("restart", id, "--local", cwd=orders)
    assert (run.returncode, run.stdout) == (0, "null\n")


def test_ctrl_c_says_that_the_run_can_go_on(orders: Path) -> None:
    process = subprocess.Popen(
        [*FLOWCTL, "invoke", "endless", "--local"], cwd=orders, stderr=subprocess.PIPE, text=True
    )
    id = _when_listed(orders, "running")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=ENDLESS_SECONDS)
    assert process.returncode == 130
    assert f"flowctl restart {id} --local" in errors


def _when_listed(orders: Path, status: str) -> str:
    for _ in range(ENDLESS_SECONDS):
        listed = result_of(flowctl("runs", "--status", status, "--local", "--json", cwd=orders))
        if listed["runs"]:
            return str(listed["runs"][0]["runId"])
    raise AssertionError(f"no run was {status}")


def test_on_a_terminal_input_and_answers_are_asked_for(orders: Path, tmp_path: Path) -> None:
    with (tmp_path / "result").open("w+") as stdout:
        terminal = Terminal("invoke", "order", "--local", cwd=orders, stdout=stdout.fileno())
        terminal.answer("item (string)", "tea")
        terminal.answer("amount (integer, optional) [1]", "many")
        terminal.answer("That is no integer", "0")
        terminal.answer("It must be at least 1", "2")
        terminal.answer("size (small/large, optional) [small]", "")
        terminal.answer("Resume it now?", "y")
        terminal.answer("approved", "y")
        code = terminal.end()
        stdout.seek(0)
        assert (code, json.load(stdout)) == (0, {"approved": True})


@pytest.mark.parametrize("question", ["item (string)", "Resume it now?"])
def test_ctrl_c_at_a_question_ends_the_command_at_once(orders: Path, question: str) -> None:
    data = ["--data", TEA] if question.startswith("Resume") else []
    terminal = Terminal("invoke", "order", "--local", *data, cwd=orders)
    terminal.interrupt(question)
    assert terminal.end() == 130
    assert ("flowctl resume" in terminal.plain) == bool(data)


def test_no_color_leaves_no_style_at_all(orders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal("invoke", "squares", "--local", cwd=orders)
    assert terminal.end() == 0
    assert re.findall(r"\x1b\[[0-9;]*m", terminal.shown) == []


def test_input_that_is_refused_leaves_no_tree_behind(orders: Path) -> None:
    terminal = Terminal("invoke", "order", "--local", "--data", "{}", cwd=orders)
    assert terminal.end() == 2
    after_the_last_line_was_wiped = terminal.shown.rsplit("\x1b[2K", maxsplit=1)[-1]
    assert "○" not in after_the_last_line_was_wiped


def test_a_terminal_shows_a_tree_that_fits_it(orders: Path) -> None:
    terminal = Terminal("invoke", "squares", "--local", cwd=orders, columns=40)
    assert terminal.end() == 0
    tree = terminal.plain[terminal.plain.rindex("✓ numbers") :].splitlines()
    assert [line.split()[:2] for line in tree[:3]] == [["✓", "numbers"], ["✓", "square"], ["✓", "total"]]
    assert all(len(line) <= 40 for line in tree[:3])


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The project while `flowctl dev` serves it with the embedded engine."""
    project = tmp_path_factory.mktemp("served") / "orders"
    shutil.copytree(Path(__file__).parent / "orders", project)
    arguments = [*FLOWCTL, "dev", "--port", "0", "--engine-port", "0", "--engine", "embedded"]
    process = subprocess.Popen(arguments, cwd=project, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "ready in" in line:
            break
    yield project
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=ENDLESS_SECONDS)


def test_invoke_runs_on_the_dev_server(served: Path) -> None:
    run = flowctl("invoke", "doubled", "--data", "21", cwd=served)
    assert (run.returncode, run.stdout) == (0, "42\n"), run.stderr


def test_invoke_runs_a_function_and_prints_what_it_returned(served: Path) -> None:
    run = flowctl("invoke", "greet", "--data", '{"name": "Ada"}', cwd=served)
    assert (run.returncode, run.stdout) == (0, '"Hello, Ada!"\n'), run.stderr


def test_a_function_that_fails_fails_the_command(served: Path) -> None:
    run = flowctl("invoke", "greet", "--data", "{}", cwd=served)
    assert (run.returncode, "KeyError" in run.stderr) == (1, True), run.stderr


def test_send_says_which_functions_an_event_begins(served: Path) -> None:
    sent = flowctl("send", "user/came", "--data", '{"name": "Ada"}', cwd=served)
    assert (sent.returncode, "it begins orders-greet" in sent.stderr) == (0, True), sent.stderr
    assert len(json.loads(sent.stdout)["ids"]) == 1
    missed = flowctl("send", "user/cane", cwd=served)
    assert "Did you mean 'user/came'?" in missed.stderr


def test_a_run_is_started_watched_resumed_and_canceled_on_a_server(served: Path) -> None:
    id = result_of(flowctl("invoke", "order", "--detach", "--data", TEA, cwd=served))["runId"]
    watched = flowctl("runs", "watch", id, "--json", cwd=served)
    events: list[Any] = [json.loads(line) for line in watched.stdout.splitlines()]
    assert (watched.returncode, events[-1]["type"]) == (5, "workflow-finish")
    canceled = result_of(flowctl("cancel", id, "--json", cwd=served))
    assert canceled["status"] == "canceled"


def test_a_run_is_resumed_on_a_server(served: Path) -> None:
    id = result_of(flowctl("invoke", "order", "--json", "--data", TEA, cwd=served))["runId"]
    run = flowctl("resume", id, "--data", YES, cwd=served)
    assert (run.returncode, json.loads(run.stdout)) == (0, {"approved": True}), run.stderr


def test_list_shows_what_another_server_has(served: Path, tmp_path: Path) -> None:
    url = json.loads((served / ".flowctl" / "dev.json").read_text())["url"]
    listed = result_of(flowctl("list", "--url", url, "--json", cwd=tmp_path))
    assert [function["id"] for function in listed["functions"]] == ["greet"]
