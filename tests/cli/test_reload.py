"""What clients see while `flowctl dev` reloads: nothing is refused, lost, delayed or hidden."""

from __future__ import annotations

import json
import os
import signal
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cli.conftest import Dev, alive, family, serving
from tests.cli.test_dev import until

ROUTES = """
import asyncio, os
from pathlib import Path
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from flowctl import App, ServerConfig

VERSION = 1

async def version(request):
    return JSONResponse({"version": VERSION, "pid": os.getpid(), "url": str(request.url)})

async def slow(request):
    Path("began").touch()
    while not Path("finish").exists():
        await asyncio.sleep(0.01)
    return JSONResponse({"version": VERSION})

async def events(request):
    async def forever():
        yield f"data: {VERSION}\\n\\n"
        await asyncio.Event().wait()
    return StreamingResponse(forever(), media_type="text/event-stream")

async def live(websocket):
    await websocket.accept()
    await websocket.send_text(str(VERSION))
    await websocket.receive_text()

routes = [Route("/version", version), Route("/slow", slow, methods=["POST"]), Route("/events", events),
          WebSocketRoute("/live", live)]
app = App(server=ServerConfig(routes=routes))
"""


@contextmanager
def routes(folder: Path, *options: str, **settings: Any) -> Iterator[Dev]:
    (folder / "app.py").write_text(ROUTES)
    with serving(folder, *options, **settings) as dev:
        yield dev


def save(folder: Path, version: int) -> None:
    (folder / "app.py").write_text(ROUTES.replace("VERSION = 1", f"VERSION = {version}"))


def ask_in_vain(method: str, url: str) -> None:
    """A request that is cut off."""
    with suppress(httpx.HTTPError):
        httpx.request(method, url, timeout=60)


def until_gone(pids: set[int]) -> None:
    until(lambda: not any(alive(pid) for pid in pids))


def version_of(dev: Dev) -> int:
    return httpx.get(f"{dev.url}/version").json()["version"]


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the certificate of `--https`'s authority will be, for this test alone."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data" / "flowctl" / "ca.pem"


@pytest.mark.parametrize("options", [(), ("--https",)])
def test_no_request_fails_while_saves_go_on(
    tmp_path: Path, authority: Path, options: tuple[str, ...]
) -> None:
    with routes(tmp_path, *options) as dev:
        stop, failures, seen = threading.Event(), list[str](), set[int]()
        trusted = ssl.create_default_context(cafile=str(authority)) if options else True

        def ask(*, keep_alive: bool) -> None:
            headers = {} if keep_alive else {"connection": "close"}
            with httpx.Client(headers=headers, verify=trusted) as client:
                while not stop.is_set():
                    try:
                        seen.add(client.get(f"{dev.url}/version").json()["version"])
                    except (httpx.HTTPError, ValueError) as err:
                        failures.append(repr(err))

        clients = [threading.Thread(target=ask, kwargs={"keep_alive": kept}) for kept in (True, True, False)]
        for client in clients:
            client.start()
        for version in range(2, 12):
            save(tmp_path, version)
            until(lambda version=version: version in seen)
        stop.set()
        for client in clients:
            client.join()
    assert failures == []


def test_a_kept_connection_goes_over_to_the_new_worker(tmp_path: Path) -> None:
    with routes(tmp_path) as dev:
        client = HTTPConnection(dev.url.removeprefix("http://"))
        versions: list[int] = []
        for version in (2, 3):
            client.request("GET", "/version")
            versions.append(json.loads(client.getresponse().read())["version"])
            kept = client.sock.getsockname()
            save(tmp_path, version)
            until(lambda version=version: version_of(dev) == version)
        assert (versions, client.sock.getsockname()) == ([1, 2], kept)
        client.close()


def test_a_kept_tls_connection_is_answered_by_the_new_worker_and_asked_to_end(
    tmp_path: Path, authority: Path
) -> None:
    with routes(tmp_path, "--https") as dev:
        address = dev.url.removeprefix("https://")
        client = HTTPSConnection(address, context=ssl.create_default_context(cafile=str(authority)))
        client.request("GET", "/version")
        first = json.loads(client.getresponse().read())
        kept = client.sock.getsockname()
        save(tmp_path, 2)
        dev.wait_for("reloaded app.py")
        assert client.sock.getsockname() == kept
        client.request("GET", "/version")
        answer = client.getresponse()
        assert answer.headers["connection"] == "close"
        second = json.loads(answer.read())
        assert (first["version"], second["version"], second["url"]) == (1, 2, f"{dev.url}/version")
        until_gone({first["pid"]})
        client.close()


def test_a_request_under_way_is_finished_by_the_worker_that_began_it(tmp_path: Path) -> None:
    with routes(tmp_path) as dev:
        answers: list[Any] = []
        url = f"{dev.url}/slow"
        asking = threading.Thread(target=lambda: answers.append(httpx.post(url, timeout=60).json()))
        asking.start()
        until((tmp_path / "began").exists)
        save(tmp_path, 2)
        dev.wait_for("reloaded app.py")
        assert version_of(dev) == 2
        (tmp_path / "finish").touch()
        asking.join()
    assert answers == [{"version": 1}]


def test_open_streams_neither_delay_a_reload_nor_outlive_it(tmp_path: Path) -> None:
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect

    with routes(tmp_path) as dev:
        with (
            httpx.stream("GET", f"{dev.url}/events", timeout=30) as stream,
            connect(f"{dev.url.replace('http', 'ws')}/live") as socket,
        ):
            lines = stream.iter_lines()
            assert (next(lines), socket.recv()) == ("data: 1", "1")
            save(tmp_path, 2)
            dev.wait_for("reloaded app.py")
            assert version_of(dev) == 2
            assert list(lines) == [""], "ended, and not broken off"
            with pytest.raises(ConnectionClosed, match="1012"):
                socket.recv(timeout=20)
        until(lambda: len(family(dev.process.pid)) == 2)


def test_an_app_that_does_not_load_answers_503_with_the_place_until_it_does(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("import os\n\nvalue = os.environ['NOT_SET']\n")
    with serving(tmp_path, until="waiting for a change") as dev:
        url = json.loads((tmp_path / ".flowctl" / "dev.json").read_text())["url"]
        until(lambda: httpx.get(f"{url}/api/workflows").status_code == 503)
        answer = httpx.get(f"{url}/api/workflows").json()
        error = httpx.get(f"{url}/api/dev").json()["error"]
        assert answer["code"] == "APP_NOT_LOADED"
        assert (error["type"], error["file"], error["line"]) == ("KeyError", "app.py", 3)
        assert ">    3 | value = os.environ['NOT_SET']" in error["code"]
        assert "KeyError: 'NOT_SET'" in "".join(dev.lines)
        (tmp_path / ".env").write_text("NOT_SET=1\n")
        (tmp_path / "app.py").write_text(ROUTES)
        dev.wait_for("ready in")
        assert httpx.get(f"{url}/api/dev").json()["state"] == "ready"


def test_a_broken_save_is_shown_once_with_its_place_and_in_the_api(tmp_path: Path) -> None:
    with routes(tmp_path) as dev:
        (tmp_path / "app.py").write_text(ROUTES + "\nx = (\n")
        seen = dev.wait_for("the last good version goes on serving")
        (tmp_path / "app.py").write_text(ROUTES + "\nx = (\n\n")
        dev.wait_for("still app.py:", after=seen)
        status = httpx.get(f"{dev.url}/api/dev").json()
        line = ROUTES.count("\n") + 2
        assert (status["state"], status["error"]["line"], version_of(dev)) == ("broken", line, 1)
        shown = "".join(dev.lines)
        assert shown.count("'(' was never closed") == 1
        assert f"app.py:{line}:5  SyntaxError" in shown


def test_an_app_that_does_not_answer_does_not_take_over(tmp_path: Path) -> None:
    with routes(tmp_path) as dev:
        failing = "\nasync def down(): raise OSError('no database')\napp.start = down\n"
        (tmp_path / "app.py").write_text(ROUTES + failing)
        dev.wait_for("the last good version goes on serving")
        assert "OSError: no database" in "".join(dev.lines)
        assert version_of(dev) == 1


def test_changes_of_settings_environment_and_templates_reload_but_ignored_files_do_not(
    tmp_path: Path,
) -> None:
    (tmp_path / ".gitignore").write_text("generated.py\nout/\n")
    (tmp_path / "out").mkdir()
    with routes(tmp_path) as dev:
        seen = len(dev.lines)
        for ignored in ("generated.py", "out/made.py", ".hidden.py", "notes.log"):
            (tmp_path / ignored).write_text("x = 1\n")
        for name in (".env", "pyproject.toml", "page.html"):
            (tmp_path / name).write_text("" if name != ".env" else "A=1\n")
            seen = dev.wait_for(f"reloaded {name}", after=seen)
        assert sum("reloaded" in line for line in dev.lines) == 3


def test_a_worker_that_dies_is_replaced_at_once(tmp_path: Path) -> None:
    with routes(tmp_path) as dev:
        pid = httpx.get(f"{dev.url}/version").json()["pid"]
        os.kill(pid, signal.SIGKILL)
        dev.wait_for("The worker died (killed by SIGKILL); starting another one.")
        assert httpx.get(f"{dev.url}/version", timeout=30).json()["pid"] != pid


def test_the_warm_process_is_replaced_too(tmp_path: Path) -> None:
    with routes(tmp_path) as dev:
        os.kill(min(family(dev.process.pid)), signal.SIGKILL)
        save(tmp_path, 2)
        dev.wait_for("reloaded app.py")
        assert version_of(dev) == 2


def test_where_forking_is_not_safe_workers_are_started_instead(tmp_path: Path) -> None:
    threads = (
        "import threading, time\nthreading.Thread(target=lambda: time.sleep(600), daemon=True).start()\n"
    )
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(threads)
    with routes(tmp_path, environment={"PYTHONPATH": str(tmp_path / "site")}) as dev:
        save(tmp_path, 2)
        dev.wait_for("reloaded app.py")
        assert version_of(dev) == 2
        started = family(dev.process.pid)
        dev.process.kill()
        dev.process.wait()
        until_gone(started)


def test_when_too_many_versions_are_at_work_the_oldest_is_ended_and_that_is_said(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    fewer = "from flowctl_cli.dev import serving\nserving.MOST_DRAINING = 1\n"
    (tmp_path / "site" / "sitecustomize.py").write_text(fewer)
    environment = {"PYTHONPATH": f"{tmp_path / 'site'}:{os.environ.get('PYTHONPATH', '')}"}
    with ThreadPoolExecutor() as clients, routes(tmp_path, environment=environment) as dev:
        answers: list[Future[httpx.Response]] = []
        for version in (2, 3):
            answers.append(clients.submit(httpx.post, f"{dev.url}/slow", timeout=60))
            until((tmp_path / "began").exists)
            (tmp_path / "began").unlink()
            save(tmp_path, version)
            until(lambda version=version: version_of(dev) == version)
        dev.wait_for("More than 1 earlier versions are at work: ending the oldest, with 1 request.")
        assert answers[0].result(timeout=20).status_code == 500
        (tmp_path / "finish").touch()
        assert answers[1].result(timeout=20).json() == {"version": 2}


def test_a_worker_that_hangs_does_not_outlive_a_killed_supervisor(tmp_path: Path) -> None:
    hang = "\nasync def stuck(request):\n    Path('stuck').touch()\n    __import__('time').sleep(600)\n"
    hang += "routes.append(Route('/stuck', stuck))\n"
    source = ROUTES.replace("\napp = App(", f"{hang}\napp = App(")
    (tmp_path / "app.py").write_text(source)
    with serving(tmp_path) as dev:
        threading.Thread(target=ask_in_vain, args=("GET", f"{dev.url}/stuck"), daemon=True).start()
        until((tmp_path / "stuck").exists)
        started = family(dev.process.pid)
        dev.process.kill()
        dev.process.wait()
        until_gone(started)


def test_ctrl_c_lets_a_request_finish_and_a_second_one_does_not(tmp_path: Path) -> None:
    with routes(tmp_path) as dev:
        threading.Thread(target=ask_in_vain, args=("POST", f"{dev.url}/slow"), daemon=True).start()
        until((tmp_path / "began").exists)
        dev.process.send_signal(signal.SIGINT)
        dev.wait_for("finishing 1 request; Ctrl-C again ends them")
        assert dev.process.poll() is None
        dev.process.send_signal(signal.SIGINT)
        assert dev.process.wait(timeout=20) == 0
