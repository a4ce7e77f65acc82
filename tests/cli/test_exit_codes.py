"""What each command's exit code says, in each situation that `docs/cli.md` names."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowctl_cli.main import COMMANDS
from tests.cli.conftest import FLOWCTL, flowctl, result_of

NO_SERVER = "http://127.0.0.1:9"
RUN = "00000000"
ABOUT_A_RUN = ("resume", "cancel", "restart", "time-travel --step a", "runs show", "runs watch")
BRACES = "{bad"
SECONDS = 60


@pytest.fixture(scope="module")
def orders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The orders project, with ports of its own."""
    folder = tmp_path_factory.mktemp("codes") / "orders"
    shutil.copytree(Path(__file__).parent / "orders", folder)
    (folder / "pyproject.toml").write_text(f"[tool.flowctl]\nport = {_free()}\nengine-port = {_free()}\n")
    return folder


def _free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def code(line: str, cwd: Path, *more: str) -> int:
    ran = flowctl(*line.split(), *more, cwd=cwd)
    assert "Traceback" not in ran.stderr or ran.returncode == 1, ran.stderr
    assert ran.returncode == 0 or ran.stderr or ran.stdout
    return ran.returncode


@pytest.mark.parametrize(
    "line", ["list", "graph squares", "runs --local", "invoke squares --local", "deploy --dry-run"]
)
def test_success_is_0(orders: Path, line: str) -> None:
    assert code(line, orders) == 0


@pytest.mark.parametrize("line", ["invoke broken --local", "invoke broken --local --json"])
def test_a_failed_run_is_1(orders: Path, line: str) -> None:
    assert code(line, orders) == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_an_option_that_is_not_there_is_2(orders: Path, name: str) -> None:
    assert code(f"{name} --nope", orders) == 2


@pytest.mark.parametrize(
    "line",
    [
        *(f"{command} {RUN} --local" for command in (*ABOUT_A_RUN, "runs delete --yes")),
        "invoke nope --local", "graph nope", "runs list nope --local", "invoke --local",
        "runs list --status nope --local", "runs list --limit 0 --local", "graph squares --format png",
        f"invoke order --local --data {BRACES}", f"invoke order --local --state {BRACES}",
        f"invoke order --local --context {BRACES}", f"resume {RUN} --data {BRACES}",
        f"send x --data {BRACES}",
        f"time-travel {RUN} --step a --resume-data {BRACES}", "invoke order --local --data {}",
        "invoke order --local --data @nowhere.json", "invoke order --local --detach --data @order.json",
        "send x --data [1]", "create", "create Not-A-Name", "create x --template nope",
        "build --target nope", "dev --port 70000", "dev --engine nope", "list --dir nowhere",
        "start --port 70000", "list --env-file nowhere", "nope", "time-travel", "engine --port 70000",
        "engine -u localhost:8000", "engine --retention -1", "engine --drain nan",
        "engine --max-queued -1", "engine --port 0 --signing-key nope",
    ],
)  # fmt: skip
def test_a_mistake_in_what_was_typed_is_2(orders: Path, line: str) -> None:
    (orders / "order.json").write_text('{"item": "tea"}')
    assert code(line, orders) == 2


@pytest.mark.parametrize(
    "line",
    [
        *(f"{command} {RUN} --local" for command in ABOUT_A_RUN),
        "list", "graph", "invoke --local", "runs --local", "build", "deploy --dry-run", "start", "invoke",
    ],
)  # fmt: skip
def test_an_app_that_cannot_be_loaded_is_3(orders: Path, tmp_path: Path, line: str) -> None:
    (tmp_path / "app.py").write_text("import nothing_like_this\n")
    (tmp_path / "pyproject.toml").write_text((orders / "pyproject.toml").read_text())
    ran = flowctl(*line.split(), cwd=tmp_path)
    assert (ran.returncode, "flowctl_cli" in ran.stderr) == (3, False), ran.stderr


@pytest.mark.parametrize(
    "line",
    [
        *(f"{command} {RUN}" for command in (*ABOUT_A_RUN, "runs delete --yes")),
        f"list --url {NO_SERVER}", f"invoke squares --url {NO_SERVER}", f"send x --url {NO_SERVER}",
        f"cancel {RUN} --url {NO_SERVER}", "runs", "send x",
    ],
)  # fmt: skip
def test_a_server_that_is_not_there_is_4(orders: Path, line: str) -> None:
    assert code(line, orders) == 4


@pytest.mark.parametrize("line", ["dev --engine embedded --port", "engine --port"])
def test_a_port_in_use_is_4(orders: Path, line: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert code(line, orders, str(taken.getsockname()[1])) == 4


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_suspended_or_paused_run_is_5(orders: Path, more: tuple[str, ...]) -> None:
    tea = ("--data", '{"item": "tea"}', "--local", *more)
    assert code("invoke order", orders, *tea) == 5
    id = result_of(flowctl("runs", "--local", "--json", cwd=orders))["runs"][0]["runId"]
    assert code(f"runs watch {id} --local", orders, *more) == 5
    assert code("invoke squares --per-step --local", orders, *more) == 5


@pytest.mark.parametrize(
    "line", ["invoke endless --local", "invoke order --local --data -", "engine --port 0 --no-poll"]
)
def test_ctrl_c_in_a_wait_is_130_or_the_end_of_a_server(orders: Path, line: str) -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [*FLOWCTL, *line.split()], cwd=orders, stdin=pipe, stdout=pipe, stderr=pipe
    ) as process:
        _until_it_waits(process.pid)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == (0 if line.startswith("engine") else 130), errors
    assert b"Traceback" not in errors


def _until_it_waits(pid: int) -> None:
    """Until it has slept for as long as it takes to look a hundred times."""
    asleep = 0
    while asleep < 100:
        asleep = asleep + 1 if _state(pid) == "S" else 0


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


RUN_KEYS = {"runId", "workflowName", "status", "payload", "steps", "stepExecutionPath"}


@pytest.mark.parametrize(
    ("line", "keys"),
    [
        ("invoke squares --local --json", {*RUN_KEYS, "result"}),
        ("invoke broken --local --json", {*RUN_KEYS, "error"}),
        ("runs --local --json", {"runs", "total"}),
        ("list --json", {"app", "source", "workflows", "functions"}),
        ("doctor --json", {"ok", "checks"}),
    ],
)
def test_json_is_one_line_with_the_names_that_are_documented(orders: Path, line: str, keys: set[str]) -> None:
    ran = flowctl(*line.split(), cwd=orders)
    assert ran.stdout.count("\n") == 1
    assert keys <= set(json.loads(ran.stdout)), ran.stdout


@pytest.fixture
def graph_without_reader(orders: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A command that prints, when the other end of its pipe is closed already."""
    with subprocess.Popen(
        [*FLOWCTL, "graph", "squares"], cwd=orders, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        yield process


def test_a_reader_that_is_gone_is_no_error(graph_without_reader: subprocess.Popen[bytes]) -> None:
    assert graph_without_reader.wait(SECONDS) == 0
    assert graph_without_reader.stderr is not None
    assert graph_without_reader.stderr.read() == b""


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"\xef\xbb\xbf[1,\r\n 2]\r\n", [1, 2]),
        ('["日本"]'.encode(), ["日本"]),
        (b"[" + b"1," * 200_000 + b"1]", None),
    ],
)
def test_data_comes_from_files_and_stdin_as_any_system_writes_them(
    tmp_path: Path, text: bytes, value: list[object] | None
) -> None:
    echo = "from flowctl import App, create_workflow\n"
    echo += "app = App(workflows=[create_workflow(id='echo').map(lambda ctx: ctx.input_data).commit()])\n"
    (tmp_path / "app.py").write_text(echo)
    (tmp_path / "data.json").write_bytes(text)
    from_file = flowctl("invoke", "--local", "--data", "@data.json", cwd=tmp_path)
    from_stdin = flowctl("invoke", "--local", "--data", "-", cwd=tmp_path, input=text.decode())
    assert from_file.stdout == from_stdin.stdout
    assert json.loads(from_file.stdout) == (value or json.loads(text))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": 1,, "b": 2}', '  {"a": 1,, "b": 2}\n          ^'),
        ('{\n  "a" 1\n}', "at line 2, column 7"),
        ("{a: 1}", "The shell took the quotes"),
        ("tea", "'\"tea\"'"),
        ("NaN", "it has no NaN"),
        (" ", "--data is empty"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_json_that_is_none_is_shown_at_its_place(orders: Path, text: str, says: str) -> None:
    ran = flowctl("invoke", "order", "--local", "--data", "-", cwd=orders, input=text)
    assert (ran.returncode, says in ran.stderr, "Traceback" in ran.stderr) == (2, True, False), ran.stderr


def test_bytes_that_are_no_text_are_named(orders: Path) -> None:
    (orders / "latin.json").write_bytes(b'{"item": "th\xe9"}')
    ran = flowctl("invoke", "order", "--local", "--data", "@latin.json", cwd=orders)
    assert (ran.returncode, "latin.json is no UTF-8 text, at byte 12" in ran.stderr) == (2, True), ran.stderr
