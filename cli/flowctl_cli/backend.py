"""Where workflows are: on a server, or in this process. What commands ask of either, and how one is chosen.

Called by the commands; calls `remote` and `local`, which answer in the JSON shapes of the REST API.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
from collections.abc import AsyncGenerator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol
from urllib.parse import urlsplit

from flowctl.errors import ConfigurationError, FlowctlError, NotFoundError
from flowctl_cli.console import say, style
from flowctl_cli.project import find_project

Event = Mapping[str, Any]
Stream = AsyncGenerator[dict[str, Any]]
SHORTEST_PREFIX = 4
RECENT = 100


class NoServerError(FlowctlError):
    """No server was named and none runs."""

    code = "NO_SERVER"
    exit_code: ClassVar[int] = 4


class NoSuchError(NotFoundError):
    """There is nothing under that name; says which are near."""

    exit_code: ClassVar[int] = 2

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        listed = sorted(known)
        there = f"There are: {', '.join(listed)}." if listed else "There are none."
        super().__init__(f"There is no {kind} {name!r}.{did_you_mean(name, listed)} {there}")


@dataclass(frozen=True, slots=True)
class RunRef:
    """A run's address: its workflow's id and its own."""

    workflow_id: str
    run_id: str


@dataclass(frozen=True, slots=True)
class Where:
    """What the options say about where workflows are."""

    url: str | None = None
    local: bool = False
    directory: Path | None = None
    app: str | None = None
    env_file: Path | None = None


class Backend(Protocol):
    """Workflows and runs; raises FlowctlError. Streams end where the run stops or is suspended."""

    @property
    def name(self) -> str:
        """How people call it: its URL, or this process."""
        ...

    @property
    def option(self) -> str:
        """The option, with a space before it, by which another command reaches the same backend."""
        ...

    def interrupted(self, run: RunRef) -> str:
        """What becomes of a run that is followed no more, and how to go on with it."""
        ...

    async def workflows(self) -> dict[str, Any]:
        """All workflows, by id."""
        ...

    async def functions(self) -> list[dict[str, Any]]:
        """All Inngest functions, workflows' included."""
        ...

    async def engine(self) -> str | None:
        """The URL of the Inngest engine beside it, where that is known."""
        ...

    async def create_run(self, workflow_id: str, *, resource_id: str | None = None) -> RunRef:
        """A stored run that is not started yet."""
        ...

    async def begin(self, run: RunRef, body: Mapping[str, Any]) -> None:
        """Start a run; do not wait for it."""
        ...

    def start(self, run: RunRef, body: Mapping[str, Any]) -> Stream:
        """Start a run; its events."""
        ...

    def resume(self, run: RunRef, body: Mapping[str, Any]) -> Stream:
        """Go on with a suspended run; the events from here on."""
        ...

    def time_travel(self, run: RunRef, body: Mapping[str, Any]) -> Stream:
        """Run again from a step on; the events from here on."""
        ...

    def observe(self, run: RunRef) -> Stream:
        """All events so far, then new ones until the run has ended."""
        ...

    async def restart(self, run: RunRef) -> None:
        """Go on with a run whose process is gone, and wait until it stops."""
        ...

    async def cancel(self, run: RunRef) -> None:
        """End a run as canceled."""
        ...

    async def run(self, run: RunRef) -> dict[str, Any] | None:
        """A run in detail; None if nothing is stored for it."""
        ...

    async def runs(self, workflow_id: str, query: Mapping[str, str]) -> dict[str, Any]:
        """A page of runs, newest first, and how many there are."""
        ...

    async def delete(self, run: RunRef) -> None:
        """Forget a run."""
        ...


@contextlib.asynccontextmanager
async def connected(where: Where, *, or_here: bool = False) -> AsyncGenerator[Backend]:
    """The backend that the options mean: `--local`, `--url`, else the project's dev server.

    Without any server, `or_here` runs in this process and says so; else raises NoServerError.
    """
    from flowctl_cli.local import opened  # noqa: PLC0415 - these two bring what only one of them needs
    from flowctl_cli.remote import Remote, server_of  # noqa: PLC0415 - as above

    if where.local:
        async with opened(where) as local:
            yield local
        return
    url = where.url or await server_of(find_project(where.directory))
    if url is not None:
        async with contextlib.aclosing(Remote(url, option=f" --url {url}" if where.url else "")) as remote:
            yield remote
        return
    if not or_here:
        raise NoServerError(
            "No dev server of this project runs. Start one with `flowctl dev`, name one with --url, "
            "or use the project's own storage with --local."
        )
    say(style("no dev server runs: running in this process, as with --local", "dim"))
    async with opened(where) as local:
        yield local


def is_here(url: str) -> bool:
    """Whether a URL is one of this machine's: proxies stand between us and others."""
    return urlsplit(url).hostname in {"127.0.0.1", "::1", "localhost"}


def chosen(workflows: Mapping[str, Any], name: str | None) -> str:
    """The workflow that is meant: the one that is named, or the only one that is not part of another."""
    if name is not None:
        if name in workflows:
            return name
        raise NoSuchError("workflow", name, workflows)
    nested = {id for workflow in workflows.values() for id, s in workflow["steps"].items() if s["isWorkflow"]}
    outer = [id for id in workflows if id not in nested]
    if len(outer) == 1:
        return outer[0]
    listed = f"There are: {', '.join(sorted(outer))}." if outer else "The app has none."
    raise ConfigurationError(f"Which workflow? {listed}")


async def find_run(backend: Backend, text: str) -> RunRef:
    """The run with that id, or the only recent one whose id begins so; raises NoSuchError."""
    ids = list(await backend.workflows())
    exact = await asyncio.gather(*(backend.run(RunRef(id, text)) for id in ids))
    for id, run in zip(ids, exact, strict=True):
        if run is not None:
            return RunRef(id, text)
    recent = [ref for id in ids for ref in await _recent(backend, id)]
    near = [ref for ref in recent if len(text) >= SHORTEST_PREFIX and ref.run_id.startswith(text)]
    if len(near) == 1:
        return near[0]
    if near:
        raise ConfigurationError(f"Several runs begin with {text!r}: {', '.join(r.run_id for r in near)}.")
    raise NotFoundError(f"There is no run {text!r} at {backend.name}. `flowctl runs` lists them.")


async def _recent(backend: Backend, workflow_id: str) -> list[RunRef]:
    page = await backend.runs(workflow_id, {"perPage": str(RECENT)})
    return [RunRef(workflow_id, str(run["runId"])) for run in page["runs"]]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'x'?`, or nothing when nothing is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
