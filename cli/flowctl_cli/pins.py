"""What a project needs from its environment: exact pins, and wheels of what no index has.

Called by `bundler`. The closure follows the metadata of installed distributions; a distribution that came
from a folder, a repository or a file is carried as a wheel, and so is flowctl itself.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import os
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from email.parser import Parser
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from flowctl.errors import FlowctlError

OURS = "flowctl-workflows"
EPOCH = (1980, 1, 1, 0, 0, 0)
EPOCH_SECONDS = "315532800"
BUILD_SECONDS = 120
_BUILD = """\
import importlib, sys
backend, out = sys.argv[1:]
module, _, path = backend.partition(":")
hooks = importlib.import_module(module)
for name in filter(None, path.split(".")):
    hooks = getattr(hooks, name)
hooks.build_wheel(out)
"""
# What an installer adds to a distribution; a wheel has none of it.
_INSTALLER = {"INSTALLER", "REQUESTED", "RECORD", "direct_url.json", "uv_build.json", "uv_cache.json"}


class BuildError(FlowctlError):
    """The bundle cannot be built."""

    code = "BUILD_ERROR"
    exit_code: ClassVar[int] = 1


@dataclass(slots=True)
class Pins:
    """The lines of a requirements.txt as they are found; wheels are written into a folder."""

    wheels: Path
    lines: dict[str, str] = field(default_factory=dict[str, str])
    _seen: set[tuple[str, str]] = field(default_factory=set[tuple[str, str]])
    _requires: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    def add(self, text: str, *, needed_by: str, extra: str = "") -> None:
        """Pin a requirement and all that it needs; raises BuildError for what is not installed."""
        try:
            wanted = Requirement(text)
        except InvalidRequirement as err:
            raise BuildError(f"{needed_by} has an invalid dependency {text!r}: {err}.") from err
        if wanted.marker and not wanted.marker.evaluate({"extra": extra}):
            return
        name = canonicalize_name(wanted.name)
        requires = self._pin(name, needed_by)
        for asked in ["", *sorted(wanted.extras)]:
            if (name, asked) not in self._seen:
                self._seen.add((name, asked))
                for requirement in requires:
                    self.add(requirement, needed_by=name, extra=asked)

    def text(self) -> str:
        """The requirements.txt."""
        return "".join(f"{self.lines[name]}\n" for name in sorted(self.lines))

    def _pin(self, name: str, needed_by: str) -> list[str]:
        if name not in self._requires:
            try:
                found = distribution(name)
            except PackageNotFoundError as err:
                raise BuildError(
                    f"{needed_by} needs {name!r}, which is not installed for {sys.executable}: "
                    "install it there, then build again."
                ) from err
            self._requires[name] = self._take(name, found)
        return self._requires[name]

    def _take(self, name: str, found: Distribution) -> list[str]:
        origin: dict[str, Any] = json.loads(found.read_text("direct_url.json") or "{}")
        if not origin and name != OURS:
            self.lines[name] = f"{name}=={found.version}"
            return found.requires or []
        editable = origin.get("dir_info", {}).get("editable", False)
        self.wheels.mkdir(exist_ok=True)
        if editable:
            wheel = _built(name, Path(unquote(urlsplit(origin["url"]).path)), self.wheels)
        else:
            wheel = _repacked(found, self.wheels)
        self.lines[name] = f"./wheels/{wheel.name}"
        return _wheel_requires(wheel)


def declared(root: Path) -> list[str]:
    """The dependencies that a project declares; flowctl is always one."""
    file = root / "pyproject.toml"
    project: Mapping[str, Any] = tomllib.loads(file.read_text()).get("project", {}) if file.is_file() else {}
    return [*project.get("dependencies", []), OURS]


def pinned(requirements: Iterable[str], *, project: str, wheels: Path) -> str:
    """The requirements.txt of a project; wheels that it names are written into the folder."""
    pins = Pins(wheels)
    for requirement in requirements:
        pins.add(requirement, needed_by=project)
    return pins.text()


def _built(name: str, source: Path, out: Path) -> Path:
    """The wheel of a checkout, made by its own build backend in a child process."""
    file = source / "pyproject.toml"
    if not file.is_file():
        raise BuildError(
            f"{name!r} is installed from {source}, which has no pyproject.toml to build it with."
        )
    backend = tomllib.loads(file.read_text()).get("build-system", {}).get("build-backend", "")
    before = set(out.iterdir())
    child = _run_backend(backend or "setuptools.build_meta", source, out)
    made = [path for path in out.iterdir() if path not in before and path.suffix == ".whl"]
    if child.returncode or not made:
        raise BuildError(
            f"{name!r} could not be built from {source}; its build backend {backend!r} must be installed "
            f"in this environment.\n{child.stderr.strip()}"
        )
    return made[0]


def _run_backend(backend: str, source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(  # noqa: S603 - the backend that the checkout names
            [sys.executable, "-c", _BUILD, backend, str(out)],
            cwd=source,
            env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH_SECONDS},
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as err:
        raise BuildError(f"{backend!r} did not build {source} within {BUILD_SECONDS} seconds.") from err


def _repacked(found: Distribution, out: Path) -> Path:
    """The wheel that a distribution was installed from, made again from the files in its RECORD."""
    wheel_text = found.read_text("WHEEL")
    if found.files is None or wheel_text is None:
        raise BuildError(f"{found.name!r} has no RECORD to pack it from: install it again with pip or uv.")
    contents: dict[str, bytes] = {}
    info = ""
    for file in found.files:
        parts = file.parts
        if ".." in parts or Path(str(file)).is_absolute() or "__pycache__" in parts:
            continue
        if parts[0].endswith(".dist-info"):
            info = parts[0]
            if parts[-1] in _INSTALLER:
                continue
        contents[file.as_posix()] = file.locate().read_bytes()  # pyright: ignore[reportAttributeAccessIssue] - a Path, typed loosely
    tags = Parser().parsestr(wheel_text).get_all("Tag") or ["py3-none-any"]
    path = out / f"{info.removesuffix('.dist-info')}-{_compressed(tags)}.whl"
    _write_wheel(path, contents, f"{info}/RECORD")
    return path


def _compressed(tags: list[str]) -> str:
    columns = zip(*(tag.split("-") for tag in tags), strict=True)
    return "-".join(".".join(sorted(set(column))) for column in columns)


def _write_wheel(path: Path, contents: Mapping[str, bytes], record: str) -> None:
    listing = io.StringIO()
    rows = csv.writer(listing, lineterminator="\n")
    for name in sorted(contents):
        digest = base64.urlsafe_b64encode(hashlib.sha256(contents[name]).digest()).rstrip(b"=").decode()
        rows.writerow([name, f"sha256={digest}", len(contents[name])])
    rows.writerow([record, "", ""])
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in [*sorted(contents.items()), (record, listing.getvalue().encode())]:
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)


def _wheel_requires(wheel: Path) -> list[str]:
    """A wheel's own word on what it needs; the environment's may be older for an editable one."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode()).get_all("Requires-Dist") or []
