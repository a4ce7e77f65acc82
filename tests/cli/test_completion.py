"""What a shell offers at Tab, and that the page and the table made from the parsers are up to date."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from flowctl_cli.completion import TABLE
from flowctl_cli.main import COMMANDS
from flowctl_cli.reference import completions, markdown
from tests.cli.conftest import FLOWCTL, flowctl, result_of

ROOT = Path(__file__).parents[2]
STALE = "run `python scripts/cli_reference.py`"


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose workflows were listed, with one run."""
    project = tmp_path_factory.mktemp("known") / "orders"
    shutil.copytree(Path(__file__).parent / "orders", project)
    assert flowctl("invoke", "order", "--local", "--data", '{"item": "tea"}', cwd=project).returncode == 5
    return project


def offered(line: str, cwd: Path) -> list[str]:
    words = line.split(" ")
    environment = {
        **os.environ,
        "_FLOWCTL_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    return flowctl(cwd=cwd, env=environment).stdout.splitlines()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("flowctl inv", ["invoke"]),
        ("flowctl runs wa", ["watch"]),
        ("flowctl invoke --lo", ["--local"]),
        ("flowctl create --template ev", ["events"]),
        ("flowctl graph order --format ", ["mermaid", "json"]),
        ("flowctl runs list --status susp", ["suspended"]),
        ("flowctl invoke or", ["order"]),
        ("flowctl invoke order ", []),
        ("flowctl invoke --data or", []),
        ("flowctl time-travel x --step review.", ["review.approve"]),
    ],
)
def test_tab_offers_what_may_come_next(known: Path, line: str, expected: list[str]) -> None:
    assert offered(line, known) == expected


def test_tab_offers_recent_runs(known: Path) -> None:
    listed = result_of(flowctl("runs", "--local", "--json", cwd=known))
    assert offered("flowctl resume ", known) == [run["runId"] for run in listed["runs"]]


@pytest.mark.parametrize(
    ("shell", "expected"),
    [
        ("zsh", """_arguments '*: :(("invoke":"Run a workflow and show its steps as they happen."))'"""),
        ("fish", "invoke\tRun a workflow and show its steps as they happen."),
        ("powershell", "invoke:::Run a workflow and show its steps as they happen."),
    ],
)
def test_other_shells_are_told_what_a_choice_means(known: Path, shell: str, expected: str) -> None:
    environment = {
        **os.environ,
        "_FLOWCTL_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": "flowctl inv",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    assert flowctl(cwd=known, env=environment).stdout == expected


@pytest.fixture
def on_path(tmp_path: Path) -> dict[str, str]:
    """The environment of a user whose shell finds this flowctl."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "flowctl").write_text(f'#!/bin/sh\nexec {" ".join(FLOWCTL)} "$@"\n')
    (folder / "flowctl").chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(tmp_path)}


def test_bash_completes_with_the_script_that_is_shown(known: Path, on_path: dict[str, str]) -> None:
    script = flowctl("--show-completion", "bash", cwd=known).stdout
    asks = "COMP_WORDS=(flowctl cancel ''); COMP_CWORD=1; COMP_WORDS[1]=canc; _flowctl_completion flowctl"
    shell = subprocess.run(
        ["bash", "-c", f'{script}\n{asks}; echo "${{COMPREPLY[@]}}"'],
        env=on_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shell.stdout == "cancel\n"


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_completes_with_the_script_that_is_shown(known: Path, on_path: dict[str, str]) -> None:
    script = flowctl("--show-completion", "fish", cwd=known).stdout
    shell = subprocess.run(
        ["fish", "--no-config", "-c", f"{script}\ncomplete -C 'flowctl invoke squa'"],
        env=on_path,
        cwd=known,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shell.stdout == "squares\tworkflow\n"


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_is_given_what_its_completion_takes(known: Path, on_path: dict[str, str]) -> None:
    script = flowctl("--show-completion", "zsh", cwd=known).stdout
    stand_ins = "compdef() { : }; _arguments() { print -rl -- $@ }; words=(flowctl invoke squa); CURRENT=3"
    shell = subprocess.run(
        ["zsh", "-fc", f"{stand_ins}\n{script}\n_flowctl_completion"],
        env=on_path,
        cwd=known,
        capture_output=True,
        text=True,
        check=True,
    )
    assert shell.stdout == '*: :(("squares":"workflow"))\n'


def test_a_shell_that_is_not_known_is_named_with_those_that_are(known: Path) -> None:
    refused = flowctl("--show-completion", "tcsh", cwd=known)
    assert (refused.returncode, "bash, zsh, fish" in refused.stderr) == (2, True)


def test_the_page_of_the_command_line_is_what_help_prints() -> None:
    assert (ROOT / "docs" / "cli.md").read_text() == markdown(), STALE


def test_the_table_for_completion_is_what_the_parsers_say() -> None:
    assert json.loads(TABLE.read_text()) == completions(), STALE


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_examples_and_exit_codes(name: str, tmp_path: Path) -> None:
    shown = flowctl(name, "--help", cwd=tmp_path)
    assert (shown.returncode, f"flowctl {name}" in shown.stdout) == (0, True)
    assert "Example" in shown.stdout
