"""Projects from templates: what a name may be, and files that are all there or not at all."""

from __future__ import annotations

import contextlib
import keyword
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

import flowctl_templates
from flowctl.errors import ConfigurationError

NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")
TAKEN = {"flowctl", "flowctl_cli", "flowctl_templates", "inngest", "pydantic", "pytest", "tests", "workflows"}
LONGEST = 60
GIT_SECONDS = 30


def checked_name(name: str) -> str:
    """A name for a project and, with `_` for `-`, its package; raises ConfigurationError saying why not."""
    package = name.replace("-", "_")
    if not NAME.fullmatch(name) or len(name) > LONGEST:
        raise ConfigurationError(
            f"{name!r} is no project name: use small letters, digits and dashes, a letter first, "
            f"at most {LONGEST}."
        )
    if keyword.iskeyword(package) or package in sys.stdlib_module_names or package in TAKEN:
        raise ConfigurationError(
            f"A package {package!r} is Python's or a library's own: try {name + '-app'!r}."
        )
    return name


def free_folder(name: str, parent: Path) -> Path:
    """Where the project goes; raises ConfigurationError when something is there."""
    target = parent / name
    if target.is_symlink() or (target.exists() and not (target.is_dir() and not any(target.iterdir()))):
        raise ConfigurationError(f"{name!r} exists and is not empty: choose another name.")
    return target


def write_project(template: str, target: Path, *, project: str) -> list[Path]:
    """Write a template's files; they appear at once, so a half-written project is never found."""
    files = flowctl_templates.files_of(template, project=project)
    with _appearing(target) as folder:
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
    return sorted(files)


@contextlib.contextmanager
def _appearing(target: Path) -> Generator[Path]:
    """A folder beside the target that becomes it at the end, or is gone."""
    folder = target.with_name(f".{target.name}-{secrets.token_hex(4)}")
    try:
        folder.mkdir()
        yield folder
        folder.rename(target)
    except OSError as err:
        raise ConfigurationError(f"Cannot write {str(target)!r}: {err.strerror}.") from err
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def has_git(folder: Path) -> bool:
    """Whether a repository can be made here: git is installed, and the folder is in none."""
    return shutil.which("git") is not None and not any(
        (p / ".git").exists() for p in [folder, *folder.parents]
    )


def make_repository(folder: Path) -> None:
    """`git init`; raises ConfigurationError with git's own words."""
    try:
        subprocess.run(
            ["git", "init", "--quiet"],  # noqa: S607 - the user's git
            cwd=folder,
            check=True,
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
        )
    except FileNotFoundError as err:
        raise ConfigurationError("There is no git here: install it, or leave --git out.") from err
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as err:
        raise ConfigurationError(f"git init: {err.stderr or err}") from err
