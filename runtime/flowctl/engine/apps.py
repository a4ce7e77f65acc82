"""Which apps and functions there are: registrations by SDKs, and apps that the engine asks to register."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from flowctl.engine import starts
from flowctl.engine import statements as sql
from flowctl.engine.ledger import Ledger
from flowctl.engine.protocol import Function, stable_id
from flowctl.engine.timing import now_ms
from flowctl.engine.transport import Transport

POLL_SECONDS = 5.0
FIRST_POLL_SECONDS = 0.1

log = logging.getLogger("flowctl.engine")


class RegistrationError(ValueError):
    """What was sent is no registration."""


@dataclass(slots=True)
class Apps:
    """The registered apps; kept in the store, so that their runs go on after a restart."""

    ledger: Ledger
    by_name: dict[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])

    def load(self) -> None:
        """Read what an earlier process registered."""
        for name, body in self.ledger.store.db.execute(sql.READ_APPS).fetchall():
            self.by_name[name] = orjson.loads(body)
        with self.ledger.store.transaction():
            self._set_functions()

    def register(self, raw: Any) -> dict[str, Any]:
        """Take an SDK's registration in place of the app's earlier one; raises RegistrationError."""
        if not isinstance(raw, dict) or not (raw.get("appName") or raw.get("appname")):
            raise RegistrationError("App ID required")
        name = str(raw.get("appName") or raw.get("appname"))
        try:
            for function in raw.get("functions") or ():
                Function.from_registration(function, name)
                starts.check(function)
        except (KeyError, StopIteration, TypeError, ValueError) as err:
            raise RegistrationError(f"A function's registration is incomplete: {err!r}") from err
        modified = self.by_name.get(name) != raw
        if modified:
            self.by_name[name] = raw
            with self.ledger.store.transaction():
                row = (name, str(raw.get("url") or ""), orjson.dumps(raw), now_ms())
                self.ledger.store.db.execute(sql.PUT_APP, row)
                self._set_functions()
            self.ledger.wake()
        app_id = stable_id("app", name)
        return {"ok": True, "modified": modified, "sync_id": stable_id("sync", name), "app_id": app_id}

    def put_endpoint(self, domain: str, function: Mapping[str, Any]) -> None:
        """Add an app's endpoint, or what changed of it, to its functions; the caller is in a transaction."""
        earlier = self.by_name.get(domain) or {}
        others = [f for f in earlier.get("functions") or () if f["id"] != function["id"]]
        if function in (earlier.get("functions") or ()):
            return
        raw = {"appName": domain, "url": domain, "functions": [*others, function]}
        self.by_name[domain] = raw
        self.ledger.store.db.execute(sql.PUT_APP, (domain, domain, orjson.dumps(raw), now_ms()))
        self._set_functions()

    def _set_functions(self) -> None:
        functions = [
            Function.from_registration(registration, name)
            for name, raw in self.by_name.items()
            for registration in raw.get("functions") or ()
        ]
        self.ledger.set_functions({function.slug: function for function in functions}, now=now_ms())


async def ask_to_register(url: str, transport: Transport, *, poll: bool) -> None:
    """Ask an app to register until it has, and again every few seconds when polling."""
    pause = FIRST_POLL_SECONDS
    while True:
        try:
            answer = await transport.request("PUT", url, headers={"x-inngest-server-kind": "dev"})
            registered = answer.status == 200
            if not registered:
                log.debug("%s answered %s to the sync.", url, answer.status)
        except OSError:
            registered = False
        if registered and not poll:
            return
        pause = POLL_SECONDS if registered else min(pause * 1.5, POLL_SECONDS)
        await asyncio.sleep(pause)
