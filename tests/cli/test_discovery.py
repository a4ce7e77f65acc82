"""How the project's app is found, and what is said where it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import flowctl, result_of

WORKFLOW = (
    "from flowctl import App, create_workflow\nw = create_workflow(id='w').map(lambda ctx: 1).commit()\n"
)
APP = f"{WORKFLOW}app = App(workflows=[w])\n"
SHOP = {"shop/__init__.py": ""}
TESTS = {"tests/__init__.py": "", "tests/app.py": APP}
BOTH = "functions/ and workflows/"
SRC = {"src/shop/__init__.py": "", "src/shop/workflows/__init__.py": ""}
FUNCTION = """
import inngest
client = inngest.Inngest(app_id="x")
@client.create_function(fn_id="f", trigger=inngest.TriggerEvent(event="e"))
async def f(ctx: inngest.Context) -> int:
    return 1
"""


def written(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "app", "source"),
    [
        ({"flow.py": APP, "app.py": APP}, "flow:app", "flow.py"),
        ({"main.py": APP}, "main:app", "main.py"),
        ({"main.py": "x = 1\n", **SHOP, "shop/app.py": APP}, "shop.app:app", "shop/app.py"),
        ({"src/shop/__init__.py": "", "src/shop/app.py": APP}, "shop.app:app", "src/shop/app.py"),
        ({"shop/app.py": APP}, "shop.app:app", "shop/app.py"),
        (
            {**SHOP, "shop/app.py": "from .flows import app\n", "shop/flows.py": APP},
            "shop.app:app",
            "shop/app.py",
        ),
        ({"app.py": APP, **TESTS}, "app:app", "app.py"),
        ({**SHOP, "shop/app.py": APP, **TESTS}, "shop.app:app", "shop/app.py"),
        (
            {"x.py": APP, "pyproject.toml": "[tool.flowctl]\napp = 'x:app'\n"},
            "x:app",
            "[tool.flowctl] in pyproject.toml",
        ),
        ({"app.py": APP, "json.py": "x = 1\n"}, "app:app", "app.py"),
        ({"workflows/a.py": WORKFLOW, "functions/b.py": FUNCTION}, "(assembled)", BOTH),
        ({**SRC, "src/shop/workflows/a.py": WORKFLOW}, "(assembled)", "src/shop/workflows/"),
    ],
)  # fmt: skip
def test_an_app_is_found_and_it_is_said_where(
    tmp_path: Path, files: dict[str, str], app: str, source: str
) -> None:
    listed = result_of(flowctl("list", "--json", cwd=written(tmp_path, files)))
    assert (listed["app"], listed["source"]) == (app, source)
    assert [workflow["id"] for workflow in listed["workflows"]] == ["w"]


def test_an_app_of_a_namespace_package_is_named(tmp_path: Path) -> None:
    listed = flowctl("list", "--app", "acme.shop.app:app", cwd=written(tmp_path, {"acme/shop/app.py": APP}))
    assert (listed.returncode, "app acme.shop.app:app (from --app)" in listed.stderr) == (0, True)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("thing:ap", "thing has no 'ap': 'thing:ap' (from --app) is no app. Did you mean 'thing:app'?"),
        ("thing:w", "'thing:w' (from --app) is a Workflow, not a flowctl App."),
        ("thing.py:app", "names a file: write its module, thing:app."),
        ("./src/thing:app", "write its module, src.thing:app."),
        ("calendar:app", "calendar.py has the name of another module"),
        ("thin:app", "There is no module 'thin'"),
    ],
)
def test_a_name_of_an_app_that_is_wrong_is_told_how_it_is(tmp_path: Path, given: str, says: str) -> None:
    run = flowctl("list", "--app", given, cwd=written(tmp_path, {"thing.py": APP, "calendar.py": APP}))
    assert (run.returncode, says in run.stderr) == (3, True), run.stderr


@pytest.mark.parametrize(
    ("files", "frames", "last"),
    [
        ({"app.py": "import nothing_like\n"}, ["app.py"], "No module named 'nothing_like'"),
        ({"app.py": "def x(:\n"}, ["app.py"], "SyntaxError: invalid syntax"),
        ({"app.py": "import sys\nsys.exit(0)\n"}, ["app.py"], "SystemExit: 0"),
        (
            {**SHOP, "shop/app.py": "from shop.b import x\ny = 1\n", "shop/b.py": "from shop.app import y\n"},
            ["shop/app.py", "shop/b.py"],
            "most likely due to a circular import",
        ),
        ({"workflows/a.py": "1 / 0\n"}, ["workflows/a.py"], "ZeroDivisionError: division by zero"),
    ],
)  # fmt: skip
def test_the_users_own_traceback_is_whole_and_ours_is_not_there(
    tmp_path: Path, files: dict[str, str], frames: list[str], last: str
) -> None:
    run = flowctl("list", cwd=written(tmp_path, files))
    shown = [line.split('"')[1] for line in run.stderr.splitlines() if line.strip().startswith("File ")]
    assert shown == [str(tmp_path / frame) for frame in frames]
    assert (run.returncode, last in run.stderr.splitlines()[-1]) == (3, True), run.stderr


@pytest.mark.parametrize(
    ("settings", "code", "says"),
    [
        (b"[tool]\nflowctl = 5\n", 2, "write [tool.flowctl] above its keys"),
        (b"[tool.flowctl]\napp = 5\n", 2, "app = 5"),
        (b"[tool.flowctl]\nlog_level = 'info'\n", 2, "Did you mean 'log-level'?"),
        (b"[tool.flowctl]\nhttps = 1\n", 2, "is not true or false"),
        (b"[tool\n", 3, "is no valid TOML"),
        (b"\xff", 3, "is no valid TOML"),
    ],
)
def test_settings_that_mean_nothing_are_told_how_they_are(
    tmp_path: Path, settings: bytes, code: int, says: str
) -> None:
    (tmp_path / "pyproject.toml").write_bytes(settings)
    run = flowctl("list", cwd=tmp_path)
    assert (run.returncode, says in run.stderr, "Traceback" in run.stderr) == (code, True, False), run.stderr


def test_a_given_file_of_variables_wins_over_all_others(tmp_path: Path) -> None:
    app = APP.replace("'w'", "__import__('os').environ['NAME']")
    names = (".env", ".env.local", ".env.development", "given.env")
    written(tmp_path, {"app.py": app, **{name: f"NAME={name[1:]}\n" for name in names}})
    listed = result_of(flowctl("list", "--json", "--env-file", "given.env", cwd=tmp_path))
    assert [workflow["id"] for workflow in listed["workflows"]] == ["iven.env"]
