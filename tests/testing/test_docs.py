"""The examples of docs/testing.md, run as the tests that they are."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"
INI = """[pytest]
filterwarnings =
    error
    ignore:Support for class-based `config`:pydantic.warnings.PydanticDeprecatedSince20
asyncio_default_fixture_loop_scope = function
"""


@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_the_examples_of_the_testing_page_pass(tmp_path: Path, mode: str) -> None:
    code = "\n\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL))
    if mode == "strict":
        code += "\n\npytestmark = pytest.mark.asyncio\n"
    (tmp_path / "test_page.py").write_text(code)
    (tmp_path / "pytest.ini").write_text(f"{INI}asyncio_mode = {mode}\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tmp_path]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, cwd=tmp_path)
    assert f"{code.count('def test_') + 1} passed" in ran.stdout, (
        ran.stdout
    )  # one of them runs on both engines
    assert ran.returncode == 0
