"""Commands that need no server: what they print, and their exit codes."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.cli.conftest import flowctl, result_of

DASHBOARD_FORM = '{"data": {"inputData": {"value": 5}}}'


def test_invoke_runs_in_this_process_with_local(project: Path) -> None:
    run = flowctl("invoke", "--local", "--data", '{"value": 7}', cwd=project)
    assert (run.returncode, run.stdout) == (0, '{"value": 10}\n')


def test_list_says_which_app_it_found_and_what_it_has(project: Path) -> None:
    listed = result_of(flowctl("list", "--json", cwd=project))
    assert listed["app"] == "my_counter.app:app"
    assert [workflow["id"] for workflow in listed["workflows"]] == ["increment-workflow"]
    assert [function["id"] for function in listed["functions"]] == ["send-welcome-email", "process-webhook"]


def test_graph_draws_the_steps(project: Path) -> None:
    drawn = flowctl("graph", "increment-workflow", cwd=project).stdout
    assert drawn.startswith("flowchart TD")
    assert '["increment"]' in drawn


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["invoke", "--local", "--data", "{bad"], 2, "no valid JSON"),
        (["invoke", "--local", "--data", '{"value": "x"}'], 2, "value: Input should be a valid integer"),
        (["invoke", "--local", "nope", "--data", "{}"], 2, "There are: increment-workflow"),
        (["invoke", "--data", "{}", "--url", "http://127.0.0.1:9"], 4, "Is `flowctl dev` running?"),
        (["invoke", "--local", "--data", DASHBOARD_FORM], 2, """--data '{"value": 5}'"""),
        (["list", "--app", "nope:app"], 3, "no module 'nope'"),
        (["invke"], 2, "Did you mean 'invoke'?"),
        (["list", "--nope"], 2, "No such option: --nope"),
        (["engine", "--port", "0", "--signing-key", "signkey-test-zz"], 2, "must be hexadecimal"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_the_way_out(
    project: Path, arguments: list[str], code: int, says: str
) -> None:
    run = flowctl(*arguments, cwd=project)
    assert (run.returncode, says in run.stderr) == (code, True), run.stderr
    assert "Traceback" not in run.stderr


def test_an_error_in_the_users_module_is_shown_from_their_frame(project: Path) -> None:
    (project / "my_counter" / "app.py").write_text("def load():\n    return 1 / 0\n\nload()\n")
    run = flowctl("list", cwd=project)
    assert run.returncode == 3
    assert run.stderr.splitlines()[1].strip() == f'File "{project}/my_counter/app.py", line 4, in <module>'
    assert run.stderr.rstrip().endswith("ZeroDivisionError: division by zero")


def test_a_port_in_use_is_refused_with_the_way_out(project: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        run = flowctl("dev", "--port", str(taken.getsockname()[1]), cwd=project)
    assert (run.returncode, "--port" in run.stderr) == (4, True)


def test_help_and_version_are_printed() -> None:
    assert flowctl("--version", cwd=Path.cwd()).stdout.startswith("flowctl ")
    assert "invoke" in flowctl("--help", cwd=Path.cwd()).stdout
