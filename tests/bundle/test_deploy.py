"""`flowctl deploy` and the deployers: what would be written and called, and what is missing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from flowctl import App, DockerDeployer, VercelDeployer
from flowctl.deployers import BundleFacts
from tests.cli.conftest import flowctl

FACTS = BundleFacts("My App", "3.12")


def tool(folder: Path, name: str, script: str) -> dict[str, str]:
    """An environment whose PATH has only this command."""
    folder.joinpath(name).write_text(f"#!/bin/sh\n{script}\n")
    folder.joinpath(name).chmod(0o755)
    return {**os.environ, "PATH": str(folder)}


def test_docker_builds_an_image_for_the_python_that_was_pinned() -> None:
    files = DockerDeployer().files(FACTS)
    assert files["Dockerfile"].startswith("FROM python:3.12-slim\n")
    assert '"127.0.0.1:8288:8288"' in files["compose.yaml"]
    assert DockerDeployer(tag="a:1").commands(FACTS, prod=False) == [["docker", "build", "--tag", "a:1", "."]]


def test_compose_takes_its_secrets_from_the_environment() -> None:
    compose = DockerDeployer().files(FACTS)["compose.yaml"]
    for name in ("INNGEST_SIGNING_KEY", "INNGEST_EVENT_KEY", "POSTGRES_PASSWORD"):
        assert f"{name}: ${{{name}:?" in compose


def test_vercel_sends_every_path_to_the_server() -> None:
    routing = json.loads(VercelDeployer().files(FACTS)["vercel.json"])
    assert routing["routes"] == [{"src": "/(.*)", "dest": "server.py"}]
    assert VercelDeployer().commands(FACTS, prod=True)[0][-1] == "--prod"


@pytest.mark.parametrize(
    ("target", "file", "call"),
    [("docker", "compose.yaml", "docker build"), ("vercel", "vercel.json", "vercel deploy")],
)
def test_a_dry_run_shows_files_and_commands_and_writes_nothing(
    counter: Path, tmp_path: Path, target: str, file: str, call: str
) -> None:
    out = tmp_path / "out"
    shown = flowctl("deploy", "--target", target, "--dry-run", "--out", str(out), cwd=counter)
    assert (shown.returncode, f"would write {out / file}" in shown.stdout) == (0, True)
    assert f"would call {call}" in shown.stdout
    assert not out.exists()


def test_without_a_docker_daemon_the_exit_code_is_4(counter: Path, tmp_path: Path) -> None:
    environment = tool(tmp_path, "docker", "echo no daemon here >&2; exit 1")
    refused = flowctl("deploy", "--target", "docker", cwd=counter, env=environment)
    assert (refused.returncode, "no daemon here" in refused.stderr) == (4, True)


def test_without_the_vercel_command_the_exit_code_is_1(counter: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": str(tmp_path)}
    refused = flowctl("deploy", "--target", "vercel", cwd=counter, env=environment)
    assert (refused.returncode, "'vercel' is not on PATH" in refused.stderr) == (1, True)


def test_the_platform_command_runs_in_the_bundle_and_its_failure_is_ours(
    counter: Path, tmp_path: Path
) -> None:
    environment = tool(tmp_path, "vercel", "echo in $PWD with $*; exit 7")
    failed = flowctl(
        "deploy", "--target", "vercel", "--out", str(tmp_path / "o"), cwd=counter, env=environment
    )
    assert f"in {tmp_path / 'o'} with deploy --yes" in failed.stdout
    assert (failed.returncode, "exit code 7" in failed.stderr) == (1, True)


def test_an_app_names_its_deployer() -> None:
    assert App(deployer=VercelDeployer()).deployer == VercelDeployer()
