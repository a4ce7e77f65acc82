"""What `flowctl dev` does at its start: a browser, a pull, a port, a daemon that it may not use."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import flowctl, serving
from tests.cli.engines.fake_daemon import pulling_daemon
from tests.cli.terminal import Terminal
from tests.cli.test_dev import until
from tests.cli.test_reload import ROUTES

IN_DOCKER = ("dev", "--engine", "docker", "--engine-image", "some/image", "--port", "0", "--engine-port", "0")


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with tempfile.TemporaryDirectory() as folder, pulling_daemon(Path(folder) / "docker.sock") as url:
        monkeypatch.setenv("DOCKER_HOST", url)
        yield


def test_open_shows_the_app_in_a_browser_and_does_not_wait_for_it(tmp_path: Path) -> None:
    browser, opened = tmp_path / "browser", tmp_path / "opened"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}\nexec sleep 5 >/dev/null 2>&1\n')
    browser.chmod(0o755)
    (tmp_path / "app.py").write_text(ROUTES)
    with serving(tmp_path, "--open", environment={"BROWSER": f"{browser} %s"}) as dev:
        until(lambda: opened.exists() and opened.read_text().strip() == dev.url)
        assert dev.stop() == 0


def test_a_pull_draws_a_bar_a_layer_on_a_terminal(project: Path, daemon: None) -> None:
    terminal = Terminal(*IN_DOCKER, cwd=project, columns=120)
    terminal.wait_for("could not be pulled: no space left on device")
    assert terminal.end() == 4
    assert "a1b2c3 Pull complete" in terminal.plain
    assert "2.0/2.0 kB" in terminal.plain


def test_a_pull_is_a_line_a_step_elsewhere(project: Path, daemon: None) -> None:
    run = flowctl(*IN_DOCKER, cwd=project)
    assert run.returncode == 4
    assert "engine │ latest Pulling from some/image\nengine │ a1b2c3 Pull complete\n" in run.stderr
    assert "Downloading" not in run.stderr


def test_a_daemon_that_the_user_may_not_use_is_told_from_none(tmp_path: Path) -> None:
    script = "import os, sys; from flowctl_cli.engines.detect import find_docker\n"
    script += "os.geteuid() or os.setuid(65534)\nprint(find_docker()[1])"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "docker.sock")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            path.chmod(0)
            Path(folder).chmod(0o755)
            run = subprocess.run(
                [sys.executable, "-c", script],
                env={"DOCKER_HOST": f"unix://{path}"},
                capture_output=True,
                text=True,
                check=True,
            )
    assert f"The Docker daemon at {path} may not be used by this user" in run.stdout
    assert "usermod -aG docker" in run.stdout


def test_ctrl_c_leaves_the_next_prompt_a_line_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(ROUTES)
    terminal = Terminal("dev", "--port", "0", "--engine-port", "0", cwd=tmp_path)
    terminal.wait_for("ready in")
    os.write(terminal.ours, b"^C")  # as terminals show it
    terminal.wait_for("^C")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.end() == 0
    assert terminal.shown.endswith("^C\n")


def test_a_port_that_is_taken_is_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(ROUTES)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = flowctl("dev", "--port", str(port), cwd=tmp_path)
    assert run.returncode == 4
    taken_by = f"Address already in use by process {os.getpid()} ("
    assert f"Cannot listen on 127.0.0.1:{port}: {taken_by}" in run.stderr
    assert "choose another port with --port" in run.stderr


def test_a_project_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(ROUTES)
    (tmp_path / ".flowctl").write_text("no folder")
    run = flowctl("dev", "--port", "0", cwd=tmp_path)
    assert run.returncode == 2
    assert f"Cannot write '{tmp_path / '.flowctl'}', where a dev server keeps its lock" in run.stderr
