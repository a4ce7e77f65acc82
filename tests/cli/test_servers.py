"""Which server a command talks to: the project's own, one that is said, or none."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import flowctl, serving

APP = "from flowctl import App, create_workflow\n"
APP += "app = App(workflows=[create_workflow(id='w').map(lambda ctx: 1).commit()])\n"
HEALTHY = {"/health": (200, '{"success": true}')}


@contextlib.contextmanager
def answering(answers: dict[str, tuple[int, str]]) -> Iterator[str]:
    """A server that answers so; 404 elsewhere. Its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers.get(self.path, (404, "{}"))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def project(folder: Path, url: str) -> Path:
    """A project whose usual server is at that URL."""
    folder.mkdir()
    (folder / "app.py").write_text(APP)
    (folder / "pyproject.toml").write_text(f"[tool.flowctl]\nport = {url.rpartition(':')[2]}\n")
    return folder


def test_another_projects_dev_server_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    with serving(tmp_path) as other:
        mine = project(tmp_path / "mine", other.url)
        listed = flowctl("runs", cwd=mine)
        run = flowctl("invoke", cwd=mine)
    assert (listed.returncode, "No dev server of this project runs" in listed.stderr) == (4, True)
    assert f"{other.url} is another project's dev server" in listed.stderr
    assert (run.returncode, run.stdout, "running in this process" in run.stderr) == (0, "1\n", True)


def test_a_server_that_is_not_the_projects_dev_server_is_said(tmp_path: Path) -> None:
    answers = HEALTHY | {"/api/workflows": (200, "{}")}
    with answering(answers) as url:
        listed = flowctl("runs", cwd=project(tmp_path / "mine", url))
    assert (listed.returncode, f"talking to {url}" in listed.stderr) == (0, True), listed.stderr


def test_a_proxy_is_not_asked_for_a_server_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with answering({"/api/workflows": (200, "{}"), "/dev": (200, "{}")}) as url:
        assert flowctl("runs", "--url", url, cwd=tmp_path).returncode == 0
        refused = flowctl("send", "x", "--url", url, cwd=tmp_path)
    assert "No answer" not in refused.stderr


def test_the_log_of_a_dev_server_has_the_users_frames_alone(tmp_path: Path) -> None:
    orders = Path(shutil.copytree(Path(__file__).parent / "orders", tmp_path / "orders"))
    with serving(orders) as dev:
        assert flowctl("invoke", "broken", cwd=orders).returncode == 1
        dev.wait_for("KeyError: 'tea'")
        files = [line.split('"')[1] for line in dev.lines if line.lstrip().startswith("File ")]
    assert files == [str(orders / "app.py")]


def test_what_a_killed_dev_server_left_behind_is_not_believed(tmp_path: Path) -> None:
    with answering(HEALTHY) as url:
        mine = project(tmp_path / "mine", "http://127.0.0.1:9")
        (mine / ".flowctl").mkdir()
        (mine / ".flowctl" / "dev.json").write_text(json.dumps({"pid": 1, "url": url, "engine": url}))
        assert flowctl("runs", cwd=mine).returncode == 4


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        ((200, "<html>"), 4, "no flowctl server"),
        ((401, '{"error": "Say who you are."}'), 2, "Say who you are."),
        ((500, "oops"), 2, "answered 500"),
    ],
)
def test_what_is_no_flowctl_server_or_refuses_is_said_in_a_line(
    tmp_path: Path, answer: tuple[int, str], code: int, says: str
) -> None:
    with answering({"/api/workflows": answer}) as url:
        run = flowctl("runs", "--url", url, cwd=tmp_path)
    assert (run.returncode, says in run.stderr, "Traceback" in run.stderr) == (code, True, False), run.stderr
