"""Which changes of files reload the app: source, settings and templates, not what tools and runs write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from flowctl.errors import FlowctlError

if TYPE_CHECKING:
    import pathspec

SOURCE = {".py", ".pyi", ".toml"}
TEMPLATES = {".html", ".htm", ".jinja", ".jinja2", ".j2", ".mako", ".tmpl", ".sql"}
# Read by many apps, written by some: a change of these while the app loads is taken for its own.
DATA = {".json", ".yaml", ".yml", ".txt", ".md"}
IGNORED = {"node_modules", "__pycache__", "venv", "site-packages", "dist", "build"}
# Shorter steps only cost wake-ups; these give the event about 14 ms after the write.
STEP_MS, DEBOUNCE_MS = 10, 50


class WatchError(FlowctlError):
    """The system refuses to watch the project."""

    exit_code = 4


@dataclass(slots=True)
class Filter:
    """What git ignores, and what nobody edits, does not reload; `.env` files always do."""

    root: Path
    extra: Sequence[Path] = ()
    _specs: dict[Path, tuple[float, pathspec.GitIgnoreSpec]] = field(
        default_factory=dict[Path, "tuple[float, pathspec.GitIgnoreSpec]"]
    )

    def __call__(self, _: object, path: str) -> bool:
        """Whether a change of the file matters (in the form that watchfiles asks)."""
        file = Path(path)
        if file in self.extra:
            return True
        if not file.is_relative_to(self.root):
            return False
        *folders, name = file.relative_to(self.root).parts
        if any(folder in IGNORED or folder.startswith(".") for folder in folders):
            return False
        if name.startswith(".env"):
            return not name.endswith((".example", "~", ".swp"))
        known = file.suffix in SOURCE | TEMPLATES | DATA and not name.startswith(".")
        return not self._is_ignored(file) if known else self._is_moved_here(file)

    def _is_moved_here(self, folder: Path) -> bool:
        """Whether it is a folder with source: of one that was renamed there is no word about its files."""
        return folder.is_dir() and any(self(None, str(file)) for file in folder.rglob("*.py"))

    def _is_ignored(self, file: Path) -> bool:
        """Ask the `.gitignore` of each folder from the repository's root down: the deepest one decides."""
        verdict = False
        for folder in reversed([*file.relative_to(self._top).parents]):
            spec = self._spec(self._top / folder)
            said = spec.check_file(str(file.relative_to(self._top / folder))).include if spec else None
            verdict = verdict if said is None else said
        return verdict

    @property
    def _top(self) -> Path:
        for folder in (self.root, *self.root.parents):
            if (folder / ".git").exists():
                return folder
        return self.root

    def _spec(self, folder: Path) -> pathspec.GitIgnoreSpec | None:
        file = folder / ".gitignore"
        try:
            changed = file.stat().st_mtime
        except OSError:
            return None
        cached = self._specs.get(folder)
        if cached is None or cached[0] != changed:
            import pathspec  # noqa: PLC0415 - the first worker starts meanwhile

            lines = file.read_text(errors="replace").splitlines()
            cached = self._specs[folder] = changed, pathspec.GitIgnoreSpec.from_lines(lines)
        return cached[1]


def is_data(file: Path) -> bool:
    """Whether apps write such files themselves."""
    return file.suffix in DATA


async def changes(filter: Filter, stop: asyncio.Event) -> AsyncIterator[list[Path]]:
    """What was changed, as it happens; raises WatchError."""
    import watchfiles  # noqa: PLC0415 - not needed with --no-reload

    paths = [filter.root, *(file.parent for file in filter.extra if not file.is_relative_to(filter.root))]
    try:
        async for changed in watchfiles.awatch(
            *paths, watch_filter=filter, step=STEP_MS, debounce=DEBOUNCE_MS, stop_event=stop
        ):
            yield sorted({Path(path) for _, path in changed})
    except OSError as err:
        raise WatchError(
            f"Cannot watch {filter.root} for changes: {err}. On Linux, raise fs.inotify.max_user_watches "
            "(sudo sysctl fs.inotify.max_user_watches=524288), or use --no-reload."
        ) from err
