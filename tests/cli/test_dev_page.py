"""The page about the dev server says what the code has."""

from __future__ import annotations

from pathlib import Path

from flowctl_cli.dev import serving, slow, watch, workers
from flowctl_cli.engines.choice import NAMES
from flowctl_cli.project import ENV_FILES

PAGE = " ".join((Path(__file__).parents[2] / "docs" / "dev.md").read_text().split())


def test_the_page_names_the_bounds() -> None:
    assert (serving.DRAIN_SECONDS, serving.STOP_SECONDS, slow.SLOW_SECONDS) == (3600, 10, 3)
    assert f"for an hour, and up to {serving.MOST_DRAINING} of them" in PAGE
    assert f"given up after {workers.START_SECONDS:.0f} seconds" in PAGE
    for said in ("finish, for ten seconds at most", "takes longer than three seconds"):
        assert said in PAGE


def test_the_page_names_engines_environment_files_and_what_reloads() -> None:
    files = ", ".join(f"`{name}`" for name in ENV_FILES[:-1])
    assert f"then from `--env-file`, {files} and `{ENV_FILES[-1]}`" in PAGE
    assert [name for name in NAMES if f"| `{name}`" not in PAGE] == []
    assert {".py", ".toml"} <= watch.SOURCE
    assert {".html", ".jinja", ".mako", ".sql"} <= watch.TEMPLATES
    assert {".json", ".yaml", ".txt", ".md"} <= watch.DATA
