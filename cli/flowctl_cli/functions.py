"""Inngest functions, through the engine that runs them: what it knows, invoking one, sending events."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flowctl.errors import ConfigurationError, EngineError
from flowctl_cli.backend import NoSuchError, is_here
from flowctl_cli.dev_lock import running
from flowctl_cli.project import Project

if TYPE_CHECKING:
    import httpx

DEFAULT_PORT = 8288
ANSWER_SECONDS = 10.0
FIRST_POLL_SECONDS, LONGEST_POLL_SECONDS = 0.05, 1.0


@dataclass(frozen=True, slots=True)
class FunctionRun:
    """How a function's run ended."""

    run_id: str
    status: str
    output: Any


def engine_of(project: Project, given: str | None = None) -> str:
    """The engine's URL: what is given, the dev server's, what the environment or the project names."""
    said = [
        given,
        running(project).get("engine"),
        os.environ.get("INNGEST_DEV"),
        os.environ.get("FLOWCTL_ENGINE"),
        project.settings.get("engine"),
    ]
    urls = [str(url).rstrip("/") for url in said if url and str(url).startswith("http")]
    return urls[0] if urls else f"http://127.0.0.1:{project.settings.get('engine-port', DEFAULT_PORT)}"


@contextlib.asynccontextmanager
async def engine_at(url: str) -> AsyncGenerator[Engine]:
    """The engine behind a URL."""
    import httpx  # noqa: PLC0415 - help needs no HTTP

    async with httpx.AsyncClient(base_url=url, timeout=ANSWER_SECONDS, trust_env=not is_here(url)) as http:
        yield Engine(url, http)


@dataclass(frozen=True, slots=True)
class Engine:
    """An Inngest engine's HTTP interface, as far as commands need it."""

    url: str
    _http: httpx.AsyncClient

    async def functions(self) -> list[dict[str, Any]]:
        """The functions of all apps that are synced: `slug`, `name`, `url`, `triggers`."""
        return (await self._call("GET", "/dev")).get("functions") or []

    async def slug_of(self, function_id: str) -> str:
        """The engine's name of a function, `<app>-<function>`; raises NoSuchError."""
        slugs = [str(function["slug"]) for function in await self.functions()]
        named = [slug for slug in slugs if slug == function_id or slug.endswith(f"-{function_id}")]
        if len(named) > 1 and function_id not in named:
            raise ConfigurationError(f"Several apps have {function_id!r}: name one of {', '.join(named)}.")
        if not named:
            raise NoSuchError(f"function at {self.url}", function_id, slugs)
        return function_id if function_id in named else named[0]

    async def invoke(self, slug: str, data: Any) -> str:
        """Begin a run of one function; the id of its event."""
        return str((await self._call("POST", f"/invoke/{slug}", {"data": data}))["id"])

    async def ended_run(self, event_id: str) -> FunctionRun:
        """Wait until the run that an event began has ended, however long that takes."""
        pause = FIRST_POLL_SECONDS
        run_id: str | None = None
        while True:
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, LONGEST_POLL_SECONDS)
            if run_id is None:
                begun = (await self._call("GET", f"/v1/events/{event_id}/runs")).get("data")
                run_id = str(begun[0]["run_id"]) if begun else None
                continue
            run: dict[str, Any] = (await self._call("GET", f"/v1/runs/{run_id}"))["data"]
            if run.get("ended_at"):
                return FunctionRun(run_id, str(run["status"]).lower(), run.get("output"))

    async def send(self, key: str, event: Mapping[str, Any]) -> dict[str, Any]:
        """Send an event; `ids` has its id."""
        return await self._call("POST", f"/e/{key}", event)

    async def _call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        import httpx  # noqa: PLC0415 - as above

        try:
            answer = await self._http.request(method, path, json=body)
        except httpx.TransportError as err:
            raise EngineError(
                f"No answer from the engine at {self.url} ({err}). Is `flowctl dev` running?"
            ) from err
        if answer.is_error:
            raise ConfigurationError(f"The engine at {self.url} refused: {_reason(answer)}")
        return answer.json()


def listening(functions: list[dict[str, Any]], event: str) -> list[str]:
    """The slugs of the functions that an event of that name begins."""
    names = {
        str(f["slug"]): [t.get("event", t.get("value")) for t in f.get("triggers") or ()] for f in functions
    }
    return [slug for slug, events in names.items() if any(_matches(event, pattern) for pattern in events)]


def _matches(event: str, pattern: Any) -> bool:
    text = str(pattern)
    return event == text or (text.endswith("*") and event.startswith(text[:-1]))


def _reason(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return f"{answer.status_code} {answer.reason_phrase}"
