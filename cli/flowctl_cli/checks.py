"""What `flowctl doctor` looks at. Each check answers one finding, and a way to mend what is wrong."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from flowctl.errors import FlowctlError
from flowctl_cli.console import users_prints_aside
from flowctl_cli.dev_lock import running
from flowctl_cli.engines import choice
from flowctl_cli.engines.choice import Machine
from flowctl_cli.engines.detect import look_around
from flowctl_cli.engines.health import until_healthy
from flowctl_cli.project import Project, ProjectError, find_project, load_app, load_environment

if TYPE_CHECKING:
    from flowctl import App

OLDEST_PYTHON = (3, 11)
HEALTH_SECONDS = 2.0
GIT_SECONDS = 10
EXAMPLE_ENV = ".env.example"
_SIGNING_KEY = re.compile(r"signkey-[\w]+-[0-9a-fA-F]+")

Status = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found; `mend` says what to do where something is wrong."""

    check: str
    status: Status
    says: str
    mend: str | None = None


def examine(directory: Path | None, app: str | None, env_file: Path | None) -> Iterator[Finding]:
    """All checks, from the ground up; what cannot be looked at without an earlier one is left out."""
    yield check_python(sys.version_info[:3], sys.executable)
    yield check_installation([distribution.name for distribution in metadata.distributions()])
    try:
        project = find_project(directory)
    except FlowctlError as err:
        yield Finding("project", "problem", str(err), "Mend the file, or name the folder with --dir.")
        return
    yield check_project(project)
    yield check_env(project, env_file)
    loaded, finding = check_app(project, app)
    yield finding
    if loaded is not None:
        yield check_storage(loaded)
    yield from check_ports(project)
    machine = look_around()
    yield check_docker(machine)
    yield check_engine(asked_engine(project), machine)


def check_python(version: Sequence[int], executable: str) -> Finding:
    """Whether Python is new enough."""
    shown = ".".join(map(str, version))
    if tuple(version[:2]) < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        return Finding("python", "problem", f"{shown} is too old", f"Use Python {oldest} or newer.")
    return Finding("python", "ok", f"{shown} at {executable}")


def check_installation(names: Sequence[str | None]) -> Finding:
    """Whether it is this flowctl that is installed: PyPI's `flowctl` is another project's."""
    if "flowctl" in names:
        return Finding(
            "installation",
            "problem",
            "the distribution 'flowctl', of another project, is installed beside flowctl-workflows",
            "pip uninstall flowctl; then pip install --force-reinstall flowctl-workflows.",
        )
    version = metadata.version("flowctl-workflows")
    return Finding(
        "installation", "ok", f"flowctl-workflows {version}, inngest {metadata.version('inngest')}"
    )


def check_project(project: Project) -> Finding:
    """Whether there is a pyproject.toml; that it can be read is known."""
    if not (project.root / "pyproject.toml").is_file():
        return Finding(
            "project",
            "warning",
            f"no pyproject.toml in {project.root} or above",
            "flowctl create makes a project.",
        )
    return Finding("project", "ok", str(project.root))


def check_env(project: Project, env_file: Path | None) -> Finding:
    """Whether `.env` stays out of git, what `.env.example` names is set, and keys look like keys."""
    if _is_tracked(project.root, ".env"):
        return Finding(
            "env",
            "problem",
            ".env is in git",
            "git rm --cached .env; add it to .gitignore; change the secrets in it.",
        )
    try:
        read = load_environment(project, env_file)
    except FlowctlError as err:
        return Finding("env", "problem", str(err), "Name a file that is there, or leave --env-file out.")
    key = os.environ.get("INNGEST_SIGNING_KEY", "")
    if key and not _SIGNING_KEY.fullmatch(key):
        mend = "Copy it again from Inngest: signkey-<environment>-<hexadecimal digits>."
        return Finding("env", "problem", "INNGEST_SIGNING_KEY is no signing key", mend)
    missing = [name for name in _asked_for(project.root / EXAMPLE_ENV) if name not in os.environ]
    if missing:
        return Finding(
            "env", "warning", f"{EXAMPLE_ENV} names {', '.join(missing)}: not set", "Set them in .env."
        )
    return Finding("env", "ok", f"read {', '.join(f.name for f in read)}" if read else "no .env file")


def check_app(project: Project, name: str | None) -> tuple[App | None, Finding]:
    """Whether the app can be imported, and has something to serve."""
    os.environ.setdefault("INNGEST_DEV", "1")
    try:
        with users_prints_aside():
            loaded = load_app(project, name)
    except ProjectError as err:
        return None, Finding("app", "problem", str(err), "Mend the error above; --app names another app.")
    app = loaded.app
    has = f"{_count(app.workflows, 'workflow')}, {_count(app.functions, 'function')}"
    says = f"{loaded.name} (from {loaded.source}): {has}"
    if not app.workflows and not app.functions:
        return app, Finding("app", "problem", says, "Give App its workflows: App(workflows=[…]).")
    return app, Finding("app", "ok", says)


def _count(things: Sized, name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


def check_storage(app: App) -> Finding:
    """Whether the app's storage can be opened and read."""
    kind = type(app.storage).__name__
    try:
        asyncio.run(_opened_and_closed(app))
    except (FlowctlError, OSError, sqlite3.Error) as err:
        mend = "Check the database's address and rights; a broken SQLite file may be moved away."
        return Finding("storage", "problem", f"{kind} cannot be used: {err}", mend)
    return Finding("storage", "ok", kind)


def check_ports(project: Project) -> Iterator[Finding]:
    """Whether `flowctl dev` could listen, or does already."""
    own = running(project)
    wanted = (
        ("port", int(project.settings.get("port", 4111)), "--port", own.get("url")),
        ("engine port", int(project.settings.get("engine-port", 8288)), "--engine-port", own.get("engine")),
    )
    for name, port, option, ours in wanted:
        if _is_free(port):
            yield Finding(name, "ok", f"{port} is free")
        elif ours is not None and ours.endswith(f":{port}") and _serves(ours):
            yield Finding(name, "ok", f"{port} is in use by flowctl, at {ours}")
        else:
            mend = f"Stop the program that has it, or use flowctl dev {option} PORT."
            yield Finding(name, "problem", f"{port} is in use by another program", mend)


def check_docker(machine: Machine) -> Finding:
    """Whether there is a Docker daemon; nothing needs one, but `deploy` and the container engine."""
    if machine.docker is not None:
        return Finding("docker", "ok", machine.docker.url)
    return Finding("docker", "warning", machine.docker_problem, "Only --engine docker and deploying need it.")


def check_engine(asked: str, machine: Machine) -> Finding:
    """Whether the engine that is asked for can be had."""
    try:
        chosen = choice.choose(choice.check(asked, "engine"), machine)
    except FlowctlError as err:
        return Finding(
            "engine", "problem", str(err), "Set FLOWCTL_ENGINE or [tool.flowctl] engine to another."
        )
    if chosen.url is not None and not _serves(chosen.url):
        mend = "Start it, or set FLOWCTL_ENGINE or [tool.flowctl] engine to another."
        return Finding("engine", "problem", f"no answer from {chosen.url}", mend)
    return Finding("engine", "ok", chosen.why if chosen.url is None else chosen.url)


def asked_engine(project: Project) -> str:
    """The engine that `flowctl dev` would use here."""
    return os.environ.get("FLOWCTL_ENGINE") or str(project.settings.get("engine", "auto"))


async def _opened_and_closed(app: App) -> None:
    await app.opened()
    try:
        for workflow in app.workflows.values():
            await workflow.list_workflow_runs(per_page=1)
    finally:
        await app.storage.close()


def _asked_for(example: Path) -> list[str]:
    """The names in an example file that are not commented out."""
    if not example.is_file():
        return []
    from dotenv import dotenv_values  # noqa: PLC0415 - only projects that have an example

    return list(dotenv_values(example))


def _is_tracked(root: Path, name: str) -> bool:
    if shutil.which("git") is None or not (root / name).is_file():
        return False
    listed = subprocess.run(  # noqa: S603 - a fixed command
        ["git", "ls-files", "--error-unmatch", name],  # noqa: S607 - the user's git
        cwd=root,
        capture_output=True,
        timeout=GIT_SECONDS,
        check=False,
    )
    return listed.returncode == 0


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen()
        except OSError:
            return False
    return True


def _serves(url: str) -> bool:
    return asyncio.run(until_healthy(url, within=HEALTH_SECONDS))


def summary(findings: Sequence[Finding]) -> Mapping[Status, int]:
    """How many findings there are of each kind."""
    kinds: tuple[Status, ...] = ("ok", "warning", "problem")
    return {kind: sum(finding.status == kind for finding in findings) for kind in kinds}
