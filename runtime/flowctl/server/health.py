"""`/health`: that the process answers, and whether storage and engine let it do its work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

import httpx
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flowctl.server.operations import json_response

if TYPE_CHECKING:
    import inngest

    from flowctl.app import App

CHECK_SECONDS = 2.0


def routes(app: App) -> list[Route]:
    """Liveness at `/health` and `/health/live`, readiness at `/health/ready`."""

    async def live(_: Request) -> Response:
        return json_response({"success": True})

    async def ready(_: Request) -> Response:
        checks = await readiness(app)
        fine = all(check["ok"] for check in checks.values())
        return json_response({"ready": fine, "checks": checks}, 200 if fine else 503)

    return [Route("/health", live), Route("/health/live", live), Route("/health/ready", ready)]


async def readiness(app: App) -> dict[str, dict[str, Any]]:
    """What the app needs to do its work, each asked with a deadline."""
    asked: dict[str, Awaitable[dict[str, Any]]] = {"storage": _checked(_read(app))}
    if app.inngest is not None:
        asked["engine"] = _checked(_reach(app.inngest))
    return dict(zip(asked, await asyncio.gather(*asked.values()), strict=True))


async def _checked(check: Awaitable[None]) -> dict[str, Any]:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await check
    except TimeoutError:
        return {"ok": False, "error": f"no answer within {CHECK_SECONDS:g} seconds"}
    except Exception as err:  # noqa: BLE001 - whatever is wrong with it, it is not ready
        return {"ok": False, "error": f"{type(err).__name__}: {err}"}
    return {"ok": True}


async def _read(app: App) -> None:
    storage = await app.opened()
    await storage.get_run("", "")


async def _reach(client: inngest.Inngest) -> None:
    async with httpx.AsyncClient(timeout=CHECK_SECONDS) as http:
        answer = await http.get(f"{client.api_origin.rstrip('/')}/health")
    if answer.is_server_error:
        raise ConnectionError(f"{client.api_origin} answered {answer.status_code}")
