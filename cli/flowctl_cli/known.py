"""What was last seen of a project's workflows: kept in `.flowctl/`, so that a shell can complete their names.

Cheap to import: a shell waits for it at every Tab.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE = "known.json"


def remember(folder: Path, workflows: Mapping[str, Any]) -> None:
    """Keep the names of workflows, as the API shows them, and their steps', if the folder can be written."""
    names = {id: sorted(shown.get("allSteps") or shown["steps"]) for id, shown in workflows.items()}
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".gitignore").write_text("*\n")
        written = folder / f"{FILE}.{os.getpid()}"
        written.write_text(json.dumps(names))
        written.replace(folder / FILE)


def recall(folder: Path) -> dict[str, list[str]]:
    """The names of steps by the workflow's name; nothing when none were kept."""
    try:
        return json.loads((folder / FILE).read_text())
    except (OSError, ValueError):
        return {}


def state_folder(start: Path) -> Path:
    """Where the project of a folder keeps its state, as `project.find_project` finds it."""
    roots = (folder for folder in [start, *start.parents] if (folder / "pyproject.toml").is_file())
    return next(roots, start) / os.environ.get("FLOWCTL_DIR", ".flowctl")
