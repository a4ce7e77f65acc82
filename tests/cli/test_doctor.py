"""`flowctl doctor`: every check passes in a good project, and names what was broken with how to mend it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowctl_cli.checks import Finding, check_docker, check_engine, check_installation, check_python
from flowctl_cli.engines.choice import DockerHost, Machine
from tests.cli.conftest import FLOWCTL, flowctl, result_of

BARE = Machine(docker=None, docker_problem="No Docker daemon answers.", binary=None)


def findings(project: Path, **environment: str) -> dict[str, dict[str, Any]]:
    """The findings by check, in a project whose ports are free and whose engine is the embedded one."""
    settings = project / "pyproject.toml"
    if "[tool.flowctl]\nport" not in settings.read_text():
        ports = f"port = {_free_port()}\nengine-port = {_free_port()}\n"
        settings.write_text(settings.read_text().replace("[tool.flowctl]\n", f"[tool.flowctl]\n{ports}"))
    env = {**os.environ, "FLOWCTL_ENGINE": "embedded", **environment}
    report = result_of(flowctl("doctor", "--json", cwd=project, env=env))
    return {finding["check"]: finding for finding in report["checks"]}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_a_new_project_has_no_problem(project: Path) -> None:
    found = findings(project)
    assert {check for check, finding in found.items() if finding["status"] == "problem"} == set()
    names = ["python", "installation", "project", "env", "app", "storage", "port", "docker", "engine"]
    assert [*names, "engine port"] == [n for n in [*names, "engine port"] if n in found]


def _forget_the_app(project: Path) -> None:
    (project / "my_counter" / "app.py").write_text("import nothing_like_this\n")


def _serve_nothing(project: Path) -> None:
    (project / "my_counter" / "app.py").write_text("from flowctl import App\napp = App()\n")


def _break_the_database(project: Path) -> None:
    (project / ".flowctl").mkdir()
    (project / ".flowctl" / "flowctl.db").write_bytes(b"no database" * 1000)


def _commit_the_secrets(project: Path) -> None:
    (project / ".env").write_text("SECRET=1\n")
    subprocess.run(["git", "init", "--quiet"], cwd=project, check=True)
    subprocess.run(["git", "add", "--force", ".env"], cwd=project, check=True)


def _give_a_wrong_key(project: Path) -> None:
    (project / ".env").write_text("INNGEST_SIGNING_KEY=oops\n")


@pytest.mark.parametrize(
    ("breaks", "check", "says", "mend"),
    [
        (_forget_the_app, "app", "No module named 'nothing_like_this'", "Mend the error"),
        (_serve_nothing, "app", "0 workflows", "App(workflows="),
        (_break_the_database, "storage", "SQLiteStorage", "moved away"),
        (_commit_the_secrets, "env", ".env is in git", "git rm --cached .env"),
        (_give_a_wrong_key, "env", "INNGEST_SIGNING_KEY", "Copy it again"),
    ],
)
def test_what_is_broken_is_named_with_how_to_mend_it(
    project: Path, breaks: Callable[[Path], None], check: str, says: str, mend: str
) -> None:
    breaks(project)
    found = findings(project)[check]
    assert (found["status"], says in found["says"], mend in found["mend"]) == ("problem", True, True), found


@pytest.mark.parametrize("setting", ["port", "engine-port"])
def test_a_port_that_another_program_has_is_a_problem(project: Path, setting: str) -> None:
    findings(project)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        file = project / "pyproject.toml"
        port = taken.getsockname()[1]
        file.write_text(
            re.sub(rf"^{setting} = \d+", f"{setting} = {port}", file.read_text(), flags=re.MULTILINE)
        )
        found = findings(project)[setting.replace("-", " ")]
    assert (found["status"], f"--{setting}" in found["mend"]) == ("problem", True)


def test_the_ports_of_the_projects_own_dev_server_are_no_problem(project: Path) -> None:
    findings(project)
    command = [*FLOWCTL, "dev", "--engine", "embedded"]
    with subprocess.Popen(command, cwd=project, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any("ready in" in line for line in process.stderr)
        found = findings(project)
        process.send_signal(signal.SIGINT)
    said = [found[check]["says"] for check in ("port", "engine port")]
    assert ["in use by flowctl" in says for says in said] == [True, True], said


def test_a_folder_that_is_no_project_is_warned_about(tmp_path: Path) -> None:
    report = result_of(flowctl("doctor", "--json", cwd=tmp_path))
    found = {finding["check"]: finding for finding in report["checks"]}
    assert (found["project"]["status"], found["project"]["mend"]) == (
        "warning",
        "flowctl create makes a project.",
    )
    assert (found["app"]["status"], "No flowctl app" in found["app"]["says"]) == ("problem", True)


def test_a_file_of_variables_that_is_not_there_is_a_problem(project: Path) -> None:
    report = flowctl("doctor", "--env-file", "none.env", cwd=project)
    assert (report.returncode, "none.env" in report.stdout, "--env-file" in report.stdout) == (1, True, True)


def test_an_engine_that_does_not_answer_is_a_problem(project: Path) -> None:
    found = findings(project, FLOWCTL_ENGINE="http://127.0.0.1:9")["engine"]
    assert (found["status"], "http://127.0.0.1:9" in found["says"]) == ("problem", True)


def test_a_toml_file_that_cannot_be_read_is_a_problem(project: Path) -> None:
    (project / "pyproject.toml").write_text("[tool\n")
    report = flowctl("doctor", cwd=project)
    assert (report.returncode, "no valid TOML" in report.stdout) == (1, True)


def test_variables_that_the_example_names_are_missed(project: Path) -> None:
    (project / ".env.example").write_text("DATABASE_URL=\n")
    found = findings(project)["env"]
    assert (found["status"], "DATABASE_URL" in found["says"]) == ("warning", True)


def test_an_old_python_is_a_problem() -> None:
    assert check_python((3, 10, 4), "python3.10").status == "problem"
    assert check_python(sys.version_info[:3], sys.executable).status == "ok"


def test_another_projects_flowctl_is_a_problem() -> None:
    found = check_installation(["flowctl", "flowctl-workflows"])
    assert (found.status, "pip uninstall flowctl" in str(found.mend)) == ("problem", True)


def test_no_docker_is_a_warning_unless_it_is_asked_for() -> None:
    assert check_docker(BARE).status == "warning"
    assert check_docker(Machine(DockerHost("unix:///run/docker.sock"), "", None)) == Finding(
        "docker", "ok", "unix:///run/docker.sock"
    )
    assert [check_engine(asked, BARE).status for asked in ("auto", "docker", "binary", "what")] == [
        "ok",
        "problem",
        "problem",
        "problem",
    ]
