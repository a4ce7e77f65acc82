"""The house: which room may know which, what importing costs, how large files may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RUNTIME, CLI = ROOT / "runtime" / "flowctl", ROOT / "cli" / "flowctl_cli"
LINES = 450
HEAVY = ["typer", "rich", "watchfiles", "docker", "uvicorn", "starlette.applications", "celpy"]


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)


@pytest.mark.parametrize(
    ("room", "may_not_import"),
    [
        (RUNTIME, ("flowctl_cli", "flowctl_templates", "typer", "rich", "watchfiles")),
        (RUNTIME / "execution", ("inngest", "flowctl.runners", "flowctl.server", "flowctl.engine")),
        (RUNTIME / "storage", ("inngest", "flowctl.runners", "flowctl.execution", "flowctl.server")),
        (RUNTIME / "server", ("flowctl.engine",)),
        (
            RUNTIME / "client",
            (
                *("inngest", "starlette", "flowctl.app", "flowctl.run", "flowctl.runners", "flowctl.storage"),
                *("flowctl.execution", "flowctl.engine", "flowctl.server.app", "flowctl.server.api"),
            ),
        ),
        (
            RUNTIME / "telemetry.py",
            (
                "inngest",
                "flowctl.app",
                "flowctl.run",
                "flowctl.execution",
                "flowctl.storage",
                "flowctl.server",
            ),
        ),
    ],
)
def test_a_room_knows_only_its_neighbours(room: Path, may_not_import: tuple[str, ...]) -> None:
    bridge = RUNTIME / "__main__.py"
    found = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in ([room] if room.is_file() else room.rglob("*.py"))
        for name in imports(file)
        if file != bridge and name.startswith(may_not_import)
    ]
    assert found == []


def test_opentelemetry_is_imported_in_one_file() -> None:
    files = [file for folder in (RUNTIME, CLI) for file in folder.rglob("*.py")]
    known = {f.name for f in files if any(name.startswith("opentelemetry") for name in imports(f))}
    assert known == {"telemetry.py"}


def test_the_engine_knows_nothing_of_workflows_nor_of_the_sdk() -> None:
    foreign = [
        f"{file.name} imports {name}"
        for file in (RUNTIME / "engine").rglob("*.py")
        for name in imports(file)
        if name.startswith("inngest")
        or (name.startswith("flowctl") and not name.startswith("flowctl.engine"))
    ]
    assert foreign == []


def test_importing_flowctl_loads_no_command_line_and_no_server() -> None:
    names = "from flowctl import App, create_step, create_workflow, Run, SQLiteStorage"
    script = f"import sys; {names}; print([m for m in {HEAVY} if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_the_public_names_are_those_of_the_stub_and_load_on_demand() -> None:
    import flowctl

    stub = ast.parse((RUNTIME / "__init__.pyi").read_text())
    sources = {
        (node.module, a.name) for node in stub.body if isinstance(node, ast.ImportFrom) for a in node.names
    }
    assert sources == {(module, name) for name, module in flowctl._HOMES.items()}
    assert all(getattr(flowctl, name) for name in flowctl.__all__)
    script = "import sys, flowctl.errors; print([m for m in ('pydantic', 'inngest') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_step_is_the_decorator_whatever_was_imported_before() -> None:
    script = "import flowctl.step; from flowctl import step; print(callable(step) and step.__name__)"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "step"


def test_no_file_is_too_long_to_read() -> None:
    files = [file for folder in (RUNTIME, CLI) for file in folder.rglob("*.py")]
    assert [file.name for file in files if len(file.read_text().splitlines()) > LINES] == []


@pytest.mark.parametrize(
    "page", ["README.md", *(str(p.relative_to(ROOT)) for p in (ROOT / "docs").rglob("*.md"))]
)
def test_links_of_the_documentation_lead_somewhere(page: str) -> None:
    import re

    text = (ROOT / page).read_text()
    targets = [target for target in re.findall(r"\]\(([^)#]+)", text) if "://" not in target]
    assert [target for target in targets if not (ROOT / page).parent.joinpath(target).exists()] == []
