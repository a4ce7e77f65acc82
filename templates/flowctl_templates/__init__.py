"""Project templates: each folder's `files` is a project with a few placeholders, `_common` what all have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
COMMON = "_common"


@dataclass(frozen=True, slots=True)
class Template:
    """A template: what it shows in a line, and what to try first in a project made from it."""

    name: str
    summary: str
    workflow: str
    data: str


TEMPLATES = {
    template.name: template
    for template in (
        Template(
            "counter",
            "a durable loop, and two Inngest functions beside it",
            "increment-workflow",
            '{"value": 5}',
        ),
        Template(
            "approval",
            "people answer: suspend, resume, nested and parallel steps",
            "plan-vacation",
            '{"vacation_description": "a quiet beach"}',
        ),
        Template(
            "scheduled",
            "a report every morning: cron, retries, concurrency, throttling",
            "daily-report",
            '{"shops": ["berlin", "tokyo"]}',
        ),
        Template(
            "events",
            "events that fan out to functions and workflows",
            "fulfil-order",
            '{"id": "A-1", "email": "ada@example.com", "items": ["pen", "ink"]}',
        ),
    )
}


def files_of(template: str, *, project: str) -> dict[Path, str]:
    """A template's files by relative path, for a project of that name.

    `__project__` and `__package__` in texts and paths become the project's name and its import name; a
    name that begins with `dot-` becomes a hidden one. A template's own file goes before the common one.
    """
    package = project.replace("-", "_")
    made: dict[Path, str] = {}
    for source in (HERE / COMMON / "files", HERE / template / "files"):
        for file in sorted(path for path in source.rglob("*") if path.is_file()):
            if "__pycache__" not in file.parts:
                path = Path(*(_named(part, package) for part in file.relative_to(source).parts))
                made[path] = file.read_text().replace("__project__", project).replace("__package__", package)
    return made


def _named(part: str, package: str) -> str:
    return part.replace("__package__", package).replace("dot-", ".", 1 if part.startswith("dot-") else 0)
