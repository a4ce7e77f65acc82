"""Which project this is, its settings, and its app: found the same way by every command."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import tomllib
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from flowctl.errors import ConfigurationError, FlowctlError
from flowctl_cli.settings import checked

if TYPE_CHECKING:
    from types import ModuleType

    from flowctl import App

APP_FILES = ("flow", "app", "main")
FOLDERS = ("workflows", "functions")
ENV_FILES = (".env.development", ".env.local", ".env")
_OURS = ("flowctl_cli", "<frozen importlib", "importlib/__init__.py")


class ProjectError(FlowctlError):
    """The project or its app cannot be loaded."""

    code = "PROJECT_ERROR"
    exit_code: ClassVar[int] = 3


class AppImportError(ProjectError):
    """A module of the user's raised while it was imported: the cause has it, the text is the traceback."""


@dataclass(frozen=True, slots=True)
class Project:
    """A folder with (usually) a pyproject.toml, and what `[tool.flowctl]` there says."""

    root: Path
    settings: Mapping[str, Any]

    @property
    def state(self) -> Path:
        """Where flowctl keeps the project's database and lock."""
        return self.root / os.environ.get("FLOWCTL_DIR", ".flowctl")


@dataclass(frozen=True, slots=True)
class LoadedApp:
    """An app, its import name and how it was found."""

    app: App
    name: str
    source: str


def find_project(directory: Path | None = None) -> Project:
    """The project of a folder: the nearest one upwards that has a pyproject.toml, else the folder."""
    start = (directory or Path.cwd()).resolve()
    if not start.is_dir():
        raise ConfigurationError(f"There is no folder {str(start)!r}: check --dir.")
    for folder in [start, *start.parents]:
        file = folder / "pyproject.toml"
        if file.is_file():
            return Project(folder, checked(_settings(file), file))
    return Project(start, {})


def _settings(file: Path) -> Any:
    """What `[tool.flowctl]` says in a pyproject.toml."""
    try:
        tools = tomllib.loads(file.read_text(encoding="utf-8")).get("tool", {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise ProjectError(f"{file} is no valid TOML: {err}.") from err
    return tools.get("flowctl", {}) if isinstance(tools, dict) else {}


def load_environment(project: Project, extra: Path | None = None) -> list[Path]:
    """Set what `.env` files say and the environment does not; answers the files that were read.

    The first file that sets a name wins: `--env-file`, `.env.development`, `.env.local`, `.env`.
    """
    from dotenv import dotenv_values  # noqa: PLC0415 - few commands load an app

    given = extra or (project.root / project.settings["env-file"] if "env-file" in project.settings else None)
    if given is not None and not given.is_file():
        raise ConfigurationError(f"There is no file {str(given)!r}: check --env-file.")
    files = [*([given] if given else []), *(project.root / name for name in ENV_FILES)]
    read = [file for file in files if file.is_file()]
    for file in read:
        for name, value in dotenv_values(file).items():
            if value is not None:
                os.environ.setdefault(name, value)
    return read


def load_app(project: Project, given: str | None = None) -> LoadedApp:
    """The project's app; raises ProjectError that lists what was tried, or shows the user's own error."""
    for path in (project.root / "src", project.root):
        if path.is_dir() and str(path) not in sys.path:
            sys.path.insert(0, str(path))
    if given:
        return _named(project.root, given, "--app")
    if configured := project.settings.get("app"):
        return _named(project.root, str(configured), "[tool.flowctl] in pyproject.toml")
    for name in _root_modules(project.root):
        if found := _app_of(project, name):
            return found
    packaged = [found for name in _package_modules(project.root) if (found := _app_of(project, name))]
    if len(packaged) > 1:
        names = ", ".join(found.name for found in packaged)
        raise ProjectError(
            f"{project.root} has several apps ({names}): choose one with --app {packaged[0].name}, "
            "or set app in [tool.flowctl]."
        )
    return packaged[0] if packaged else _assembled(project)


def _root_modules(root: Path) -> list[str]:
    return [name for name in APP_FILES if (root / f"{name}.py").is_file()]


def _package_modules(root: Path) -> list[str]:
    """Those of packages; when there is none, those of folders without an `__init__.py`."""
    files = [file for base in (root, root / "src") for file in sorted(base.glob("*/app.py"))]
    folders = [
        file.parent for file in files if file.parent.name.isidentifier() and file.parent.name != "tests"
    ]
    packages = [folder for folder in folders if (folder / "__init__.py").is_file()]
    return [f"{folder.name}.app" for folder in packages or folders]


def _app_of(project: Project, name: str) -> LoadedApp | None:
    """The app that a module defines, and the file in which it was found."""
    module = _imported(project.root, name)
    found = _app_in(module)
    if found is None:
        return None
    file = Path(module.__file__ or name)
    shown = file.relative_to(project.root) if file.is_relative_to(project.root) else file
    return LoadedApp(found[1], f"{name}:{found[0]}", str(shown))


def _named(root: Path, name: str, where: str) -> LoadedApp:
    module_name, _, attribute = name.partition(":")
    attribute = attribute or "app"
    if module_name.endswith(".py") or "/" in module_name:
        dotted = module_name.removesuffix(".py").strip("./").replace("/", ".")
        raise ProjectError(f"{name!r} (from {where}) names a file: write its module, {dotted}:{attribute}.")
    module = _imported(root, module_name)
    value = getattr(module, attribute, None)
    from flowctl import App  # noqa: PLC0415 - loads the library only with an app

    if isinstance(value, App):
        return LoadedApp(value, f"{module_name}:{attribute}", where)
    if value is not None:
        kind = type(value).__name__
        raise ProjectError(f"{name!r} (from {where}) is a {kind}, not a flowctl App.")
    near = difflib.get_close_matches(attribute, vars(module), n=1)
    hint = f" Did you mean {f'{module_name}:{near[0]}'!r}?" if near else ""
    raise ProjectError(f"{module_name} has no {attribute!r}: {name!r} (from {where}) is no app.{hint}")


def _assembled(project: Project) -> LoadedApp:
    """An app of all workflows and functions in modules under `workflows/` and `functions/`."""
    import inngest  # noqa: PLC0415 - as in _named

    from flowctl import App, Workflow  # noqa: PLC0415 - as in _named

    found: dict[int, Any] = {}
    folders = [folder for name in FOLDERS for folder in _folders(project.root, name)]
    for folder in folders:
        for file in sorted(folder.rglob("*.py")):
            base = project.root / "src" if (project.root / "src") in file.parents else project.root
            module = _imported(
                project.root, ".".join(file.relative_to(base).with_suffix("").parts).removesuffix(".__init__")
            )
            found |= {id(v): v for v in vars(module).values() if isinstance(v, Workflow | inngest.Function)}
    if not found:
        raise ProjectError(_nothing_found(project))
    workflows = [value for value in found.values() if isinstance(value, Workflow)]
    functions = [value for value in found.values() if isinstance(value, inngest.Function)]
    shown = " and ".join(sorted({f"{folder.relative_to(project.root)}/" for folder in folders}))
    return LoadedApp(App(workflows=workflows, functions=functions), "(assembled)", shown)


def _nothing_found(project: Project) -> str:
    tried = [*_root_modules(project.root), *_package_modules(project.root)]
    listed = ", ".join(f"{name.replace('.', '/')}.py" for name in tried) or "flow.py, app.py, main.py"
    text = f"No flowctl app in {project.root}. Tried {listed} and the folders workflows/ and functions/.\n"
    if below := _projects_below(project.root):
        return f"{text}There are projects in {', '.join(below)}: choose one with --dir {below[0]}."
    return f"{text}Define `app = App(workflows=[…])` in app.py, or name it: --app module:attribute."


def _projects_below(root: Path) -> list[str]:
    """Folders of a repository that have settings of flowctl."""
    files = [*root.glob("*/pyproject.toml"), *root.glob("*/*/pyproject.toml")]
    return sorted(
        str(file.parent.relative_to(root))
        for file in files
        if "[tool.flowctl]" in file.read_text(errors="replace")
    )


def _folders(root: Path, name: str) -> list[Path]:
    packages = [p.parent for base in (root, root / "src") for p in base.glob("*/__init__.py")]
    return [folder for base in [root, *packages] if (folder := base / name).is_dir()]


def _app_in(module: ModuleType) -> tuple[str, Any] | None:
    from flowctl import App  # noqa: PLC0415 - as in _named

    apps = {name: value for name, value in vars(module).items() if isinstance(value, App)}
    if len({id(app) for app in apps.values()}) > 1:
        raise ProjectError(
            f"{module.__name__}.py defines several apps ({', '.join(apps)}): "
            f"choose one with --app {module.__name__}:{next(iter(apps))}."
        )
    return next(iter(apps.items()), None)


def _imported(root: Path, name: str) -> ModuleType:
    try:
        module = importlib.import_module(name)
    except (Exception, SystemExit) as err:
        if isinstance(err, ModuleNotFoundError) and f"{name}.".startswith(f"{err.name}."):
            raise ProjectError(f"There is no module {name!r}: check the name of the app.") from err
        raise AppImportError(user_traceback(err)) from err
    _check_origin(root, module)
    return module


def _check_origin(root: Path, module: ModuleType) -> None:
    """Refuse a module of Python's or a library's own when the project has one of that name."""
    file = Path(module.__file__ or root).resolve()
    if file.is_relative_to(root.resolve()):
        return
    for path in (base.joinpath(*module.__name__.split(".")) for base in (root / "src", root)):
        hidden = next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)
        if hidden is not None:
            raise ProjectError(f"{hidden} has the name of another module, {file}: give it another name.")


def user_traceback(err: BaseException) -> str:
    """The traceback from the user's first frame on: whole, without the loader's frames."""
    shown = traceback.TracebackException.from_exception(err)
    seen: traceback.TracebackException | None = shown
    while seen is not None:
        frames = [f for f in seen.stack if not any(part in f.filename for part in _OURS)]
        seen.stack = traceback.StackSummary.from_list(frames)
        seen = seen.__cause__ or seen.__context__
    return "".join(shown.format()).rstrip()
