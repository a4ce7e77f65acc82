"""Asks apps to register, at start and again while polling.

Called by `server`. In development an app answers by calling `/fn/register`; with signing keys it is asked to
answer in band: its functions come in the signed reply itself, so that it need not reach the engine for that.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from flowctl.engine.apps import Apps
from flowctl.engine.protocol import parsed_json
from flowctl.engine.registration import RegistrationError
from flowctl.engine.signing import HEADER, Keys, outbound
from flowctl.engine.timing import now_ms
from flowctl.engine.transport import Answer, Transport

POLL_SECONDS = 5.0
FIRST_POLL_SECONDS = 0.1
IN_BAND = "in_band"

log = logging.getLogger("flowctl.engine")


class SyncError(ValueError):
    """The app did not register; the message says why."""


@dataclass(frozen=True, slots=True)
class Syncs:
    """How apps are asked."""

    apps: Apps
    keys: Keys
    transport: Transport

    async def keep(self, url: str, *, poll: bool) -> None:
        """Ask an app to register until it has, and again every few seconds when polling."""
        pause, told = FIRST_POLL_SECONDS, ""
        while True:
            try:
                await self.sync(url)
                registered = True
            except (OSError, SyncError, sqlite3.Error) as err:
                registered = False
                if str(err) != told:
                    level = logging.INFO if isinstance(err, OSError) else logging.WARNING
                    log.log(level, "%s is not synced: %s", url, str(err).removeprefix(f"{url}: "))
                told = str(err)
            if registered and not poll:
                return
            pause = POLL_SECONDS if registered else min(pause * 1.5, POLL_SECONDS)
            await asyncio.sleep(pause)

    async def sync(self, url: str) -> None:
        """Ask an app once; raises OSError when it is not reached, SyncError when it refuses."""
        body = orjson.dumps({"url": url})
        answer = await self.transport.request("PUT", url, headers=self._headers(body), body=body)
        if answer.status != 200:
            raise SyncError(
                f"it answered with status {answer.status}: {answer.body[:500].decode(errors='replace')}"
            )
        if answer.headers.get("x-inngest-sync-kind") == IN_BAND:
            self._take(answer)

    def _headers(self, body: bytes) -> Mapping[str, str]:
        headers = {"content-type": "application/json", "x-inngest-server-kind": self.keys.kind}
        if self.keys.signs:
            headers["x-inngest-sync-kind"] = IN_BAND
        return {**headers, **outbound(self.keys, body, now=now_ms())}

    def _take(self, answer: Answer) -> None:
        """Register what an in-band reply says; a reply that no key of ours has signed says nothing."""
        try:
            sent = parsed_json(answer.body)
        except ValueError as err:
            raise SyncError("its reply is no JSON") from err
        if not self.keys.has_signed(answer.headers.get(HEADER, ""), bytes(answer.body), now=now_ms()):
            raise SyncError("its reply is not signed with the engine's signing key")
        if not isinstance(sent, dict):
            raise SyncError("its reply is no JSON object")
        try:
            self.apps.register(registration_of(sent))
        except RegistrationError as err:
            raise SyncError(str(err)) from err


def registration_of(reply: Mapping[str, Any]) -> dict[str, Any]:
    """An in-band reply in the shape of a registration."""
    sdk = f"{reply.get('sdk_author') or 'inngest'}-{reply.get('sdk_language')}:v{reply.get('sdk_version')}"
    return {
        "appName": reply.get("app_id"),
        "url": reply.get("url"),
        "framework": reply.get("framework"),
        "sdk": "inngest-" + sdk.removeprefix("inngest-"),
        "functions": reply.get("functions") or [],
    }
