"""Project templates: each folder's `files` is a project with a few placeholders."""

from __future__ import annotations

from pathlib import Path


def names() -> list[str]:
    """The templates there are."""
    return sorted(path.parent.name for path in Path(__file__).parent.glob("*/files"))


def scaffold(template: str, target: Path, *, project: str) -> list[Path]:
    """Write a template's files into a folder; answers what was written.

    `__project__` and `__package__` in texts and paths become the project's name and its import name; a
    name that begins with `dot-` becomes a hidden one.
    """
    source = Path(__file__).parent / template / "files"
    package = project.replace("-", "_")
    written: list[Path] = []
    for file in sorted(path for path in source.rglob("*") if path.is_file()):
        if "__pycache__" in file.parts:
            continue
        parts = [_named(part, package) for part in file.relative_to(source).parts]
        path = target.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.read_text().replace("__project__", project).replace("__package__", package))
        written.append(path)
    return written


def _named(part: str, package: str) -> str:
    return part.replace("__package__", package).replace("dot-", ".", 1 if part.startswith("dot-") else 0)
