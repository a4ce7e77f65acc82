"""Answers for an app that has not loaded yet: at once and with what is wrong, so that no client waits."""

from __future__ import annotations

import html
import json
from typing import Any

from starlette.types import Receive, Scope, Send

from flowctl.server.gate import LocalOnly
from flowctl_cli.dev.channel import Job
from flowctl_cli.dev.server import Server, with_tls
from flowctl_cli.dev.shell import STATUS_PATH

END_SECONDS = 10.0


async def serve(job: Job) -> None:
    """Answer until the app loads."""
    handed_over, hand_over_to, *listeners = job.sockets
    server = Server(LocalOnly(Broken(job.spec["status"])))
    await server.start_app()
    await server.listen(with_tls(listeners, job.spec["tls"]))
    server.adopt_from(handed_over)
    job.channel.send(loaded={})
    job.channel.send(ready=True)
    async for command in job.channel.commands():
        if command["do"] == "finish":
            server.stop_accepting(hand_over_to)
            job.channel.send(released=True)
            await server.until_idle(within=END_SECONDS)
            return


class Broken:
    """503 with the error: JSON for programs, a page for people."""

    def __init__(self, status: dict[str, Any]) -> None:
        self.status = status

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One answer for every path, except the status."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if scope["type"] != "http":
            return
        is_status = scope["path"] == STATUS_PATH
        accepts = dict(scope["headers"]).get(b"accept", b"")
        kind, body = b"application/json", self._json(whole=is_status)
        if b"text/html" in accepts and not is_status:
            kind, body = b"text/html; charset=utf-8", self._page()
        headers = [(b"content-type", kind), (b"cache-control", b"no-store"), (b"retry-after", b"1")]
        await send({"type": "http.response.start", "status": 200 if is_status else 503, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _json(self, *, whole: bool) -> bytes:
        error = self.status["error"]
        body = {"error": f"The app does not load: {error['message']}", "code": "APP_NOT_LOADED"}
        return json.dumps(self.status if whole else body | {"details": error}).encode()

    def _page(self) -> bytes:
        error = self.status["error"]
        place = ":".join(str(error[key]) for key in ("file", "line") if error[key])
        told = html.escape("\n\n".join(part for part in (error["code"], error["traceback"]) if part))
        title = html.escape(f"{error['type']}: {error['message']}")
        return (
            '<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="1">'
            f"<title>The app does not load</title><h1>The app does not load</h1><p><b>{title}</b></p>"
            f"<p>{html.escape(place)}</p><pre>{told}</pre><p>This page comes back when you save.</p>"
        ).encode()


async def _live(receive: Receive, send: Send) -> None:
    while (await receive())["type"] != "lifespan.shutdown":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})
