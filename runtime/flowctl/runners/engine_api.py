"""Authenticated calls to Inngest's HTTP API: checkpoints, realtime messages, cancellations.

Called by `checkpoints`, `publisher` and `dispatch`.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin
from weakref import WeakKeyDictionary

import httpx
import orjson

from flowctl.errors import EngineError

if TYPE_CHECKING:
    import inngest

TIMEOUT_SECONDS = 30.0
UNKNOWN_FOR_SECONDS = 300.0
_PREFIX = re.compile(r"signkey-\w+-")


@dataclass(slots=True)
class EngineApi:
    """The API of the engine that a client talks to; safe to use from several event loops."""

    client: inngest.Inngest
    _clients: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = field(
        default_factory=WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient]
    )
    is_open: bool = True
    _has_no_checkpoints_until: float = 0.0
    _uses_fallback_key: bool = False

    @property
    def takes_checkpoints(self) -> bool:
        """Whether the engine is believed to know checkpoints; one that did not is asked again later."""
        return time.monotonic() >= self._has_no_checkpoints_until

    def note_no_checkpoints(self) -> None:
        """Remember, for some minutes, that the engine does not know checkpoints."""
        self._has_no_checkpoints_until = time.monotonic() + UNKNOWN_FOR_SECONDS

    async def call(
        self, method: str, path: str, body: Any = None, params: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """The answer, whatever its status; raises EngineError when there is none."""
        answer = await self._call(method, path, body, params)
        if answer.status_code == 401 and self.client.signing_key_fallback and not self._uses_fallback_key:
            self._uses_fallback_key = True
            answer = await self._call(method, path, body, params)
        return answer

    async def close(self) -> None:
        """Close the connections of this event loop, and make no others until `is_open` is set again."""
        self.is_open = False
        http = self._clients.pop(asyncio.get_running_loop(), None)
        if http is not None:
            await http.aclose()

    async def _call(
        self, method: str, path: str, body: Any, params: Mapping[str, str] | None
    ) -> httpx.Response:
        content = None if body is None else orjson.dumps(body)
        url = urljoin(self.client.api_origin, path)
        try:
            return await self._http().request(
                method, url, content=content, params=params, headers=self._headers()
            )
        except httpx.HTTPError as err:
            raise EngineError(f"Inngest at {self.client.api_origin} could not be reached: {err!r}") from err

    def _http(self) -> httpx.AsyncClient:
        if not self.is_open:
            raise EngineError("The app has been stopped: it calls the engine no more.")
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            self._clients[loop] = httpx.AsyncClient(timeout=TIMEOUT_SECONDS)
        return self._clients[loop]

    def _headers(self) -> dict[str, str]:
        headers = {"content-type": "application/json"}
        key = self.client.signing_key_fallback if self._uses_fallback_key else self.client.signing_key
        if key:
            headers["authorization"] = f"Bearer {_hashed(key)}"
        if self.client.env:
            headers["x-inngest-env"] = self.client.env
        return headers


def _hashed(key: str) -> str:
    prefix = match.group() if (match := _PREFIX.match(key)) else ""
    return prefix + hashlib.sha256(bytes.fromhex(key.removeprefix(prefix))).hexdigest()
