"""The table of behaviour names tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_test_that_the_table_names_exists() -> None:
    named = re.findall(r"`(\S+\.py)::(\w+)`", (ROOT / "docs" / "behaviour.md").read_text())
    assert len(named) > 200
    missing = [f"{file}::{test}" for file, test in named if test not in names_in(file)]
    assert missing == []


def names_in(file: str) -> set[str]:
    tree = ast.parse((ROOT / "tests" / file.removeprefix("tests/")).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
