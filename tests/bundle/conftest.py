"""One counter project and its bundle, built once for the tests that only look."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import flowctl


@pytest.fixture(scope="session")
def counter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The counter project with what must stay out of a bundle, built."""
    folder = tmp_path_factory.mktemp("bundle")
    made = flowctl("create", "my-counter", cwd=folder)
    assert made.returncode == 0, made.stderr
    root = folder / "my-counter"
    for name in [".env", "server.pem", ".flowctl/flowctl.db", ".git/config", "my_counter/__pycache__/x.pyc"]:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("SECRET")
    (root / "my_counter" / "outside").symlink_to(Path(__file__))
    built = flowctl("build", cwd=root)
    assert built.returncode == 0, built.stderr
    return root


@pytest.fixture
def bundle(counter: Path) -> Path:
    """The bundle of the counter project."""
    return counter / ".output"
