"""Bundles: a folder that has all a deployment needs, the same bytes for the same tree.

Called by `commands.build` and `commands.deploy`. A bundle is made in a folder beside its place, booted once
there, and only then moved in.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowctl.deployers import BundleFacts, Deployer
from flowctl.deployers.base import MANIFEST
from flowctl_cli.commands.start import READY
from flowctl_cli.pins import OURS, BuildError, declared, pinned

if TYPE_CHECKING:
    from flowctl import App, Workflow
    from flowctl_cli.project import LoadedApp, Project

SOURCE = "project"
BOOT_SECONDS = 30.0
STOP_SECONDS = 10.0

# Hidden files are left out before these are asked: .env, .git, .venv, .flowctl and caches are among them.
_LEFT_OUT = ("__pycache__", "node_modules", "tests", "test", "*.egg-info")
_LEFT_OUT_AT_ROOT = ("build", "dist", "venv", "env", "htmlcov")
_NO_SOURCE = (
    *("*.py[cod]", "test_*.py", "*_test.py", "conftest.py"),
    *(
        "*.pem",
        "*.key",
        "*.p12",
        "*.pfx",
        "id_rsa*",
        "id_ed25519*",
        "*.env",
        "credentials*.json",
        "secrets.*",
    ),
)

_SERVER = '''\
"""The ASGI application of this bundle."""

import os
import sys
from pathlib import Path

os.environ["FLOWCTL_ENV"] = "production"
_project = Path(__file__).resolve().parent / "project"
sys.path[:0] = [str(path) for path in (_project, _project / "src") if path.is_dir()]

{load}

app = _app.asgi
'''
_NAMED = "from {module} import {attribute} as _app  # noqa: E402"
_ASSEMBLED = """\
from flowctl_cli.project import find_project, load_app  # noqa: E402

_app = load_app(find_project(_project)).app"""


@dataclass(frozen=True, slots=True)
class Built:
    """A finished bundle."""

    folder: Path
    facts: BundleFacts
    content_hash: str
    files: tuple[str, ...]


def facts_of(project: Project) -> BundleFacts:
    """What deployers are told about a project."""
    name = str(project.root.name)
    file = project.root / "pyproject.toml"
    if file.is_file():
        import tomllib  # noqa: PLC0415 - projects without one need no parser

        name = tomllib.loads(file.read_text()).get("project", {}).get("name", name)
    return BundleFacts(name, f"{sys.version_info.major}.{sys.version_info.minor}")


def build(project: Project, loaded: LoadedApp, deployer: Deployer, *, out: Path) -> Built:
    """Make the bundle of a loaded project and put it at `out`; on BuildError `out` is as it was."""
    _check_place(project.root, out)
    try:
        content_hash = _put(project, loaded, deployer, out)
    except OSError as err:
        raise BuildError(
            f"Cannot write the bundle to {str(out)!r}: {err.strerror}. Choose another place with --out."
        ) from err
    files = tuple(path.relative_to(out).as_posix() for path in _files(out))
    return Built(out, facts_of(project), content_hash, files)


def _put(project: Project, loaded: LoadedApp, deployer: Deployer, out: Path) -> str:
    """Make a bundle beside its place, try it, and put it there; its hash."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name.lstrip('.')}.", dir=out.parent) as beside:
        folder = Path(beside) / "bundle"
        folder.mkdir()
        content_hash = _write(folder, project, loaded, deployer, out=out)
        boot(folder, workflows=list(loaded.app.workflows))
        _swap(folder, out, aside=Path(beside) / "replaced")
    return content_hash


def _write(folder: Path, project: Project, loaded: LoadedApp, deployer: Deployer, *, out: Path) -> str:
    facts = facts_of(project)
    for file in source_files(project.root, out=out):
        target = folder / SOURCE / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(project.root / file, target)
    requirements = pinned(declared(project.root), project=facts.name, wheels=folder / "wheels")
    written = {
        "requirements.txt": requirements,
        "server.py": server_text(loaded.name),
        ".dockerignore": ".flowctl\n.vercel\n",
        **deployer.files(facts),
    }
    for name, text in written.items():
        (folder / name).write_text(text)
    digest = hash_of(folder)
    described = manifest(loaded, facts, target=deployer.target, content_hash=digest)
    (folder / MANIFEST).write_text(json.dumps(described, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    return digest


def source_files(root: Path, *, out: Path) -> Iterator[Path]:
    """The files of a project that a bundle has, relative to its root, in order."""
    for folder, names, files in os.walk(root):
        here = Path(folder)
        names[:] = sorted(name for name in names if _is_source_folder(here / name, root, out))
        for name in sorted(files):
            path = here / name
            if _hidden(name) or _matches(name, _NO_SOURCE) or not path.resolve().is_relative_to(root):
                continue
            yield path.relative_to(root)


def _is_source_folder(path: Path, root: Path, out: Path) -> bool:
    if _hidden(path.name) or _matches(path.name, _LEFT_OUT) or path == out:
        return False
    if path.parent == root and path.name in _LEFT_OUT_AT_ROOT:
        return False
    return not (path / "pyvenv.cfg").exists() and not (path / MANIFEST).exists()


def _hidden(name: str) -> bool:
    return name.startswith(".")


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def server_text(app: str) -> str:
    """The bundle's `server.py` for an app's import name."""
    module, _, attribute = app.partition(":")
    load = _NAMED.format(module=module, attribute=attribute) if attribute else _ASSEMBLED
    return _SERVER.format(load=load)


def manifest(loaded: LoadedApp, facts: BundleFacts, *, target: str, content_hash: str) -> dict[str, Any]:
    """What the bundle is, for people and programs."""
    return {
        "name": facts.name,
        "app": loaded.name,
        "target": target,
        "python": facts.python,
        "flowctl": version(OURS),
        "contentHash": content_hash,
        "workflows": {id: _described(workflow) for id, workflow in loaded.app.workflows.items()},
        "functions": _functions(loaded.app),
    }


def _described(workflow: Workflow[Any, Any]) -> dict[str, Any]:
    schemas = workflow.schemas
    return {
        "description": workflow.description,
        "steps": list(workflow.steps),
        "inputSchema": schemas.input.json_schema() if schemas.input else None,
        "outputSchema": schemas.output.json_schema() if schemas.output else None,
        "stateSchema": schemas.state.json_schema() if schemas.state else None,
    }


def _functions(app: App) -> list[dict[str, Any]]:
    return [{"id": function.local_id, "name": function.name} for function in app.inngest_functions()]


def hash_of(folder: Path) -> str:
    """One hash of all files' names and contents, but for the manifest, which holds it."""
    whole = hashlib.sha256()
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        if name != MANIFEST:
            whole.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return f"sha256:{whole.hexdigest()}"


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _check_place(root: Path, out: Path) -> None:
    """Refuse to replace what is no bundle: whatever stands at `out` is deleted."""
    if out == root or out in root.parents:
        raise BuildError(f"--out {str(out)!r} holds the project itself: name a folder of its own.")
    if out.exists() and not (out.is_dir() and ((out / MANIFEST).is_file() or not any(out.iterdir()))):
        raise BuildError(f"--out {str(out)!r} exists and is no bundle: remove it, or name another folder.")


def _swap(folder: Path, out: Path, *, aside: Path) -> None:
    if not out.exists():
        folder.rename(out)
        return
    out.rename(aside)
    try:
        folder.rename(out)
    except OSError:
        aside.rename(out)
        raise


def boot(folder: Path, *, workflows: list[str]) -> None:
    """Start a bundle in a process of its own and ask it for its workflows; raises BuildError."""
    with tempfile.TemporaryDirectory() as scratch:
        arguments = [sys.executable, "-m", "flowctl", "start", "--dir", str(folder), "--port", "0"]
        child = subprocess.Popen(  # noqa: S603 - our own command
            [*arguments, "--host", "127.0.0.1"],
            cwd=scratch,
            env=_boot_environment(scratch),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        said = _Said(child)
        try:
            _check_answers(said.url(BOOT_SECONDS), workflows)
        except BuildError as err:
            raise BuildError(f"The bundle does not start: {err}\n{said.text()}".rstrip()) from None
        finally:
            _stop(child)
            said.close()


def _boot_environment(scratch: str) -> Mapping[str, str]:
    """As in production, with runs kept in a scratch folder; no engine is called."""
    inherited = {
        name: value for name, value in os.environ.items() if name not in {"INNGEST_DEV", "FLOWCTL_ENV"}
    }
    return inherited | {"FLOWCTL_DIR": scratch, "PYTHONDONTWRITEBYTECODE": "1"}


class _Said:
    """What a child writes on stderr, read as it comes."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self._child, self._lines = child, list[str]()
        self._url = ""
        self._news = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def url(self, seconds: float) -> str:
        """Where the child serves; raises BuildError when it ends or says nothing in time."""
        if not self._news.wait(seconds):
            raise BuildError(f"it was not ready within {seconds:.0f} seconds.")
        if not self._url:
            raise BuildError("it ended while it started.")
        return self._url

    def text(self) -> str:
        """All it said."""
        return "".join(self._lines)

    def close(self) -> None:
        """Read to the end and close the pipe."""
        self._reader.join(STOP_SECONDS)
        if self._child.stderr is not None:
            self._child.stderr.close()

    def _read(self) -> None:
        for line in self._child.stderr or ():
            self._lines.append(line)
            if line.startswith(READY):
                self._url = line.split()[1]
                self._news.set()
        self._news.set()


def _check_answers(url: str, workflows: list[str]) -> None:
    import httpx  # noqa: PLC0415 - only a boot asks a server

    try:
        with httpx.Client(base_url=url, timeout=STOP_SECONDS, trust_env=False) as client:
            client.get("/health").raise_for_status()
            served = client.get("/api/workflows").raise_for_status().json()
    except (httpx.HTTPError, ValueError) as err:
        raise BuildError(f"{err}.") from err
    if missing := [id for id in workflows if id not in served]:
        raise BuildError(f"it does not serve {', '.join(map(repr, missing))}.")


def _stop(child: subprocess.Popen[str]) -> None:
    child.terminate()
    try:
        child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
