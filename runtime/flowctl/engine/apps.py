"""Which apps and functions there are: what SDKs registered, kept in the store.

Called by `api`, `rest` and `syncs`. A registration replaces the app's earlier one; functions that it no
longer has are removed, and their open runs cancelled.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from flowctl.engine import rest_statements
from flowctl.engine import statements as sql
from flowctl.engine.ledger import Ledger
from flowctl.engine.protocol import Function, iso, stable_id
from flowctl.engine.registration import RegistrationError, app_name
from flowctl.engine.timing import Clock, SystemClock

log = logging.getLogger("flowctl.engine")


@dataclass(slots=True)
class Apps:
    """The registered apps; kept in the store, so that their runs go on after a restart."""

    ledger: Ledger
    clock: Clock = field(default_factory=SystemClock)
    by_name: dict[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])

    def load(self) -> None:
        """Read what an earlier process registered."""
        for name, body in self.ledger.store.db.execute(sql.READ_APPS).fetchall():
            self.by_name[name] = orjson.loads(body)
        with self.ledger.store.transaction():
            self._set_functions(now=self.clock.now())

    def register(self, raw: Any) -> dict[str, Any]:
        """Take an SDK's registration in place of the app's earlier one; raises RegistrationError."""
        name = app_name(raw)
        self._check_slugs(name, raw)
        modified = self.by_name.get(name) != raw
        if modified:
            now = self.clock.now()
            row = (name, str(raw.get("url") or ""), orjson.dumps(raw), now)
            self._change({**self.by_name, name: raw}, sql.PUT_APP, row, now=now)
            count = len(self._registered(name))
            log.info("The app %r at %s is registered, functions: %d.", name, raw.get("url"), count)
        app_id = stable_id("app", name)
        return {"ok": True, "modified": modified, "sync_id": stable_id("sync", name), "app_id": app_id}

    def put_endpoint(self, domain: str, function: Mapping[str, Any]) -> None:
        """Add an app's endpoint, or what changed of it, to its functions."""
        earlier = self.by_name.get(domain) or {}
        others = [f for f in earlier.get("functions") or () if f["id"] != function["id"]]
        if function in (earlier.get("functions") or ()):
            return
        raw, now = {"appName": domain, "url": domain, "functions": [*others, function]}, self.clock.now()
        row = (domain, domain, orjson.dumps(raw), now)
        self._change({**self.by_name, domain: raw}, sql.PUT_APP, row, now=now)

    def remove(self, name: str, *, now: int) -> bool:
        """Forget an app; False when there is none of that name."""
        if name not in self.by_name:
            return False
        others = {other: raw for other, raw in self.by_name.items() if other != name}
        self._change(others, rest_statements.DELETE_APP, (name,), now=now)
        log.info("The app %r is removed.", name)
        return True

    def _change(
        self, by_name: dict[str, Mapping[str, Any]], statement: str, row: tuple[Any, ...], *, now: int
    ) -> None:
        """Have these apps instead, here and in the store, or in neither."""
        earlier, functions = self.by_name, dict(self.ledger.functions)
        try:
            with self.ledger.store.transaction():
                self.by_name = by_name
                self.ledger.store.db.execute(statement, row)
                self._set_functions(now=now)
        except BaseException:
            self.by_name = earlier
            self.ledger.functions.clear()
            self.ledger.functions.update(functions)
            raise
        self.ledger.wake()

    def named_at(self, url: str) -> str | None:
        """The name of the app that is served at a URL."""
        wanted = _without_query(url)
        served = (
            name for name, raw in self.by_name.items() if _without_query(raw.get("url") or "") == wanted
        )
        return next(served, None)

    def functions_of(self, name: str) -> list[Function]:
        """The functions of an app; none for an unknown one."""
        slugs = [str(function["id"]) for function in self._registered(name)]
        return [self.ledger.functions[slug] for slug in slugs if slug in self.ledger.functions]

    def slugs_of(self, app_id: str) -> list[str]:
        """The full ids of the functions of the app with this UUID."""
        return [slug for slug, function in self.ledger.functions.items() if function.app_id == app_id]

    def to_json(self) -> list[dict[str, Any]]:
        """As the API shows them."""
        rows = self.ledger.store.db.execute(rest_statements.APPS).fetchall()
        return [_shown(orjson.loads(body), name, synced_at) for name, body, synced_at in rows]

    def _registered(self, name: str) -> list[Mapping[str, Any]]:
        return list((self.by_name.get(name) or {}).get("functions") or ())

    def _check_slugs(self, name: str, raw: Mapping[str, Any]) -> None:
        """A function's id is unique among all apps, as its slug says to whom it belongs."""
        wanted = {str(function["id"]) for function in raw.get("functions") or ()}
        for other in self.by_name.keys() - {name}:
            if taken := wanted & {str(function["id"]) for function in self._registered(other)}:
                raise RegistrationError(
                    f"The function id {min(taken)!r} belongs to the app {other!r} already: "
                    "give one of the two another id, or remove that app."
                )

    def _set_functions(self, *, now: int) -> None:
        functions = [
            Function.from_registration(registration, name)
            for name in self.by_name
            for registration in self._registered(name)
        ]
        self.ledger.set_functions({function.slug: function for function in functions}, now=now)


def _shown(raw: Mapping[str, Any], name: str, synced_at: int) -> dict[str, Any]:
    language, _, version = str(raw.get("sdk") or "").partition(":v")
    return {
        "id": stable_id("app", name),
        "name": name,
        "url": raw.get("url") or "",
        "sdk_language": language.removeprefix("inngest-"),
        "sdk_version": version,
        "framework": raw.get("framework"),
        "function_count": len(raw.get("functions") or ()),
        "synced_at": iso(synced_at),
    }


def _without_query(url: str) -> str:
    return url.partition("?")[0].rstrip("/")
