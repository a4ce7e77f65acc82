"""Where `flowctl dev` takes its settings from, how it finds the app, and what it says of both."""

from __future__ import annotations

import ssl
from pathlib import Path

import httpx
import pytest

from tests.cli.conftest import flowctl, result_of, serving
from tests.cli.test_dev import until

APP = "import os\nfrom flowctl import App, create_workflow\nfrom flowctl import create_step\n"
APP += "async def run(ctx): return 1\n"
APP += "w = create_workflow(id=os.environ.get('NAME', 'w')).then(create_step(id='s', execute=run))\n"
APP += "app = App(workflows=[w])\n"


def listed(folder: Path, *options: str) -> tuple[str, list[str]]:
    answer = result_of(flowctl("list", "--json", *options, cwd=folder))
    return answer["app"], [workflow["id"] for workflow in answer["workflows"]]


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({".env": "NAME=plain"}, "plain"),
        ({".env": "NAME=plain", ".env.local": "NAME=local"}, "local"),
        ({".env.local": "NAME=local", ".env.development": "NAME=development"}, "development"),
    ],
)
def test_the_most_particular_environment_file_wins(tmp_path: Path, files: dict[str, str], name: str) -> None:
    (tmp_path / "app.py").write_text(APP)
    for file, text in files.items():
        (tmp_path / file).write_text(text)
    assert listed(tmp_path) == ("app:app", [name])


def test_the_environment_wins_over_files_and_a_given_file_over_the_projects(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / ".env").write_text("NAME=plain")
    (tmp_path / "other.env").write_text("NAME=given")
    (tmp_path / "pyproject.toml").write_text('[tool.flowctl]\nenv-file = "other.env"\n')
    assert listed(tmp_path) == ("app:app", ["given"])


def test_an_app_in_a_src_layout_is_found(tmp_path: Path) -> None:
    package = tmp_path / "src" / "shop"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "app.py").write_text(APP)
    assert listed(tmp_path) == ("shop.app:app", ["w"])


def test_several_apps_of_a_project_have_to_be_told_apart(tmp_path: Path) -> None:
    for name in ("billing", "shop"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
        (tmp_path / name / "app.py").write_text(APP)
    run = flowctl("list", cwd=tmp_path)
    assert (run.returncode, "billing.app:app, shop.app:app" in run.stderr) == (3, True), run.stderr
    assert listed(tmp_path, "--app", "shop.app:app") == ("shop.app:app", ["w"])


def test_the_projects_of_a_repository_are_named_at_its_root(tmp_path: Path) -> None:
    below = tmp_path / "apps" / "shop"
    below.mkdir(parents=True)
    (below / "pyproject.toml").write_text("[tool.flowctl]\n")
    (below / "app.py").write_text(APP)
    run = flowctl("list", cwd=tmp_path)
    assert (run.returncode, "--dir apps/shop" in run.stderr) == (3, True), run.stderr
    assert listed(tmp_path, "--dir", "apps/shop") == ("app:app", ["w"])


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ('prot = 4111', "has no key 'prot'. Did you mean 'port'?"),
        ('port = "4111"', "port = '4111'"),
        ('engine = "dokcer"', "[tool.flowctl] engine 'dokcer' is none of auto"),
        ('env-file = "none.env"', "There is no file 'none.env'"),
        ('log-level = "loud"', "is none of debug, info, warning, error"),
        ("port = 70000", "no port number"),
    ],
)  # fmt: skip
def test_a_setting_that_means_nothing_is_named(tmp_path: Path, setting: str, says: str) -> None:
    (tmp_path / "pyproject.toml").write_text(f"[tool.flowctl]\n{setting}\n")
    run = flowctl("dev", cwd=tmp_path)
    assert (run.returncode, says in run.stderr) == (2, True), run.stderr


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("--app", "nope:app"), 3, "no module 'nope'"),
        (("--engine", "http://127.0.0.1:9"), 4, "No Inngest answers at http://127.0.0.1:9"),
        (("--engine", "binary"), 4, "npm install -g inngest-cli"),
        (("--dir", "nowhere"), 2, "no folder"),
    ],
)
def test_a_start_that_fails_exits_with_its_code(
    tmp_path: Path, options: tuple[str, ...], code: int, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "app.py").write_text(
        "import inngest\n" + APP.replace("[w]", "[w], inngest=inngest.Inngest(app_id='a')")
    )
    run = flowctl("dev", "--port", "0", "--engine-port", "0", "--engine", "embedded", *options, cwd=tmp_path)
    assert (run.returncode, says in run.stderr) == (code, True), run.stderr
    assert "Traceback" not in run.stderr


def test_an_app_that_never_loaded_gives_its_code_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("x = (\n")
    with serving(tmp_path, until="waiting for a change") as dev:
        assert dev.stop() == 3
    assert flowctl("dev", "--no-reload", "--port", "0", cwd=tmp_path).returncode == 3


def test_settings_of_the_project_are_used_and_shown(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / ".env").write_text("NAME=from-env")
    (tmp_path / "pyproject.toml").write_text('[tool.flowctl]\nlog-level = "warning"\nreload = false\n')
    with serving(tmp_path) as dev:
        httpx.get(f"{dev.url}/api/workflows")
        shown = "".join(dev.lines)
        assert "app app:app (from app.py)" in shown
        assert "settings   .env" in shown
        assert "from-env" in shown
        (tmp_path / "app.py").write_text("x = (\n")
        assert httpx.get(f"{dev.url}/api/workflows").status_code == 200
    assert "GET" not in "".join(dev.lines)


def test_a_change_that_needs_a_new_start_is_said(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    with serving(tmp_path) as dev:
        (tmp_path / "pyproject.toml").write_text("[tool.flowctl]\nport = 4999\n")
        dev.wait_for("port in pyproject.toml: takes effect when you start again.")


def test_requests_are_logged_but_not_those_of_the_engine(project: Path) -> None:
    with serving(project) as dev:
        httpx.get(f"{dev.url}/api/workflows")
        httpx.get(f"{dev.url}/api/inngest")
        httpx.get(f"{dev.url}/nowhere")
        dev.wait_for("GET    /nowhere  404")
        logged = [line for line in dev.lines if "GET" in line]
        assert ["/api/workflows  200" in line for line in logged] == [True, False], logged


def test_a_client_that_was_pointed_elsewhere_is_warned_about_with_both_urls(project: Path) -> None:
    client = project / "my_counter" / "client.py"
    client.write_text(
        client.read_text().replace("(app_id", '(event_api_base_url="http://127.0.0.1:9", app_id')
    )
    with serving(project) as dev:
        dev.wait_for(
            "The app's Inngest client uses http://127.0.0.1:9, but the engine of this dev server is http"
        )


def test_https_is_served_with_a_certificate_of_an_own_authority(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    with serving(project, "--https") as dev:
        trusted = ssl.create_default_context(cafile=str(tmp_path / "data" / "flowctl" / "ca.pem"))
        assert dev.url.startswith("https://")
        assert httpx.get(f"{dev.url}/health", verify=trusted).status_code == 200
        assert "signed by" in "".join(dev.lines)
        assert result_of(flowctl("invoke", "--data", '{"value": 5}', cwd=project)) == {"value": 10}
        key = project / ".flowctl" / "https.key"
        assert key.stat().st_mode & 0o777 == 0o600


def test_a_debugger_attaches_to_each_worker_at_one_port(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    (tmp_path / "app.py").write_text(APP)
    with serving(tmp_path, "--debug", "--debug-port", str(port)) as dev:
        dev.wait_for(f"attach to 127.0.0.1:{port}")

        def speaks() -> bool:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=5) as debugger:
                    return debugger.recv(16).startswith(b"Content-Length")
            except OSError:
                return False

        until(speaks)
        (tmp_path / "app.py").write_text(APP + "\n# changed\n")
        dev.wait_for("reloaded app.py")
        until(speaks)


def test_an_inngest_binary_is_run_and_its_log_is_shown(project: Path, tmp_path: Path) -> None:
    import sys

    folder = tmp_path / "bin"
    folder.mkdir()
    engine = f'{sys.executable} -m flowctl.engine -u "$3" --host "$5" --port "$7"'
    script = f'#!/bin/sh\necho "stand-in: $*"\nexec {engine}\n'
    (folder / "inngest").write_text(script)
    (folder / "inngest").chmod(0o755)
    environment = {"PATH": f"{folder}:/usr/bin:/bin"}
    with serving(project, engine="binary", environment=environment) as dev:
        dev.wait_for("engine │ stand-in: dev -u http://127.0.0.1:")
        assert result_of(flowctl("invoke", "--data", '{"value": 5}', cwd=project)) == {"value": 10}
