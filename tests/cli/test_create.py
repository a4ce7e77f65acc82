"""Projects that `flowctl create` makes: what is in them works, and nothing is overwritten."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flowctl_templates import TEMPLATES
from tests.cli.conftest import flowctl, result_of
from tests.cli.terminal import Terminal

BIN = Path(sys.executable).parent
OFFLINE = {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1"}
SECONDS = 110
RESULTS: dict[str, Any] = {
    "counter": {"value": 10},
    "scheduled": {
        "title": "Sales",
        "lines": ["berlin: 245 in 3 orders", "tokyo: 300 in 1 orders"],
        "total": 545,
    },
    "events": {
        "order": "A-1",
        "parcels": ["parcel with pen", "parcel with ink"],
        "invoice": "invoice A-1 for 2 items",
    },
}


def ran(*command: str, cwd: Path) -> None:
    environment = {**os.environ, **OFFLINE}
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=SECONDS, check=False, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A project of the template that the test names."""
    created = flowctl("create", "my-project", "--template", request.param, cwd=tmp_path)
    assert created.returncode == 0, created.stderr
    return tmp_path / "my-project"


@pytest.mark.parametrize("made", TEMPLATES, indirect=True)
def test_a_made_project_passes_its_own_tests_in_an_environment_of_its_own(made: Path) -> None:
    ran(sys.executable, "-m", "venv", "--without-pip", ".venv", cwd=made)
    packages = next((made / ".venv" / "lib").glob("python*")) / "site-packages"
    ours = f"import site; site.addsitedir({str(_site_packages())!r})\n"
    (packages / "flowctl.pth").write_text(ours)
    ran(".venv/bin/python", "-m", "pytest", "-q", cwd=made)


def _site_packages() -> Path:
    return Path(pytest.__file__).parent.parent


def test_made_projects_are_well_formed(tmp_path: Path) -> None:
    for name in TEMPLATES:
        assert flowctl("create", f"my-{name}", "--template", name, cwd=tmp_path).returncode == 0
    ran(str(BIN / "ruff"), "check", "--extend-select", "I,B,UP", ".", cwd=tmp_path)
    ran(str(BIN / "ruff"), "format", "--check", ".", cwd=tmp_path)
    roots = [{"root": f"my-{name}"} for name in TEMPLATES]
    (tmp_path / "pyrightconfig.json").write_text(
        json.dumps({"typeCheckingMode": "strict", "executionEnvironments": roots})
    )
    ran(str(BIN / "pyright"), "--pythonpath", sys.executable, ".", cwd=tmp_path)


@pytest.mark.parametrize("template", RESULTS)
def test_a_made_project_does_what_its_first_lines_say(template: str, tmp_path: Path) -> None:
    created = flowctl("create", "my-project", "--template", template, cwd=tmp_path)
    first = TEMPLATES[template]
    assert f"flowctl invoke {first.workflow} --data '{first.data}'" in created.stderr
    run = flowctl("invoke", first.workflow, "--local", "--data", first.data, cwd=tmp_path / "my-project")
    assert (run.returncode, json.loads(run.stdout)) == (0, RESULTS[template])


@pytest.mark.parametrize("made", ["approval"], indirect=True)
def test_the_approval_project_is_taken_through_by_its_people(made: Path) -> None:
    data = TEMPLATES["approval"].data
    id = result_of(flowctl("invoke", "--local", "--json", "--data", data, cwd=made))["runId"]
    answers = {
        "human-input": {"selection": "Algarve"},
        "sign-off.manager": {"approved": True},
        "sign-off.finance": {"approved": True, "comment": "Enjoy!"},
    }
    for step, answer in answers.items():
        run = flowctl("resume", id, "--local", "--step", step, "--data", json.dumps(answer), cwd=made)
    assert json.loads(run.stdout) == {"selection": "Algarve", "booked": True, "comments": ["Enjoy!"]}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("My-App", "small letters"),
        ("../up", "small letters"),
        ("json", "Python's"),
        ("class", "'class-app'"),
        ("inngest", "library's"),
        ("a" * 61, "at most 60"),
    ],
)
def test_a_name_that_could_not_be_imported_is_refused(name: str, says: str, tmp_path: Path) -> None:
    refused = flowctl("create", name, cwd=tmp_path)
    assert (refused.returncode, says in refused.stderr) == (2, True), refused.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("thing", ["file", "link", "folder"])
def test_nothing_is_overwritten(thing: str, tmp_path: Path) -> None:
    taken = tmp_path / "my-app"
    if thing == "folder":
        (taken / "precious").mkdir(parents=True)
    elif thing == "link":
        taken.symlink_to(tmp_path)
    else:
        taken.write_text("precious")
    refused = flowctl("create", "my-app", cwd=tmp_path)
    assert (refused.returncode, "choose another name" in refused.stderr) == (2, True)
    assert list(tmp_path.iterdir()) == [taken]


def test_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    (tmp_path / "my-app").mkdir()
    assert flowctl("create", "my-app", "--yes", cwd=tmp_path).returncode == 0
    assert (tmp_path / "my-app" / "my_app" / "app.py").is_file()


def test_a_template_that_is_not_there_is_named_with_one_that_is(tmp_path: Path) -> None:
    refused = flowctl("create", "my-app", "--template", "aproval", cwd=tmp_path)
    assert (refused.returncode, "Did you mean 'approval'?" in refused.stderr) == (2, True)


def test_without_a_terminal_a_name_is_demanded_or_taken_by_yes(tmp_path: Path) -> None:
    assert "flowctl create NAME" in flowctl("create", cwd=tmp_path).stderr
    made = result_of(flowctl("create", "--yes", "--json", cwd=tmp_path))
    assert (made["folder"], made["template"]) == (str(tmp_path / "my-app"), "counter")


def test_a_git_repository_is_made_only_when_asked(tmp_path: Path) -> None:
    assert flowctl("create", "one", cwd=tmp_path).returncode == 0
    assert flowctl("create", "two", "--git", cwd=tmp_path).returncode == 0
    assert [(tmp_path / name / ".git").is_dir() for name in ("one", "two")] == [False, True]


def test_ctrl_c_at_a_question_leaves_nothing_behind(tmp_path: Path) -> None:
    terminal = Terminal("create", "my-app", cwd=tmp_path)
    terminal.interrupt("Which template? [1]")
    assert (terminal.end(), list(tmp_path.iterdir())) == (130, [])


def test_on_a_terminal_what_is_not_said_is_asked_for(tmp_path: Path) -> None:
    terminal = Terminal("create", cwd=tmp_path)
    terminal.answer("Name of the project [my-app]", "Not A Name")
    terminal.answer("small letters", "asked")
    terminal.answer("Which template? [1]", "scheduled")
    terminal.answer("git repository", "n")
    assert terminal.end() == 0
    assert (tmp_path / "asked" / "asked" / "sales.py").is_file()
