"""Small calls to engines and apps, with what the standard library has: it loads at once."""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

POLL_SECONDS = 0.1
ANSWER_SECONDS = 2.0


async def call(
    method: str, url: str, *, headers: Mapping[str, str] | None = None, within: float = ANSWER_SECONDS
) -> tuple[int, bytes]:
    """One call; its status and body. Raises OSError when there is no answer in that time."""
    return await asyncio.to_thread(_call, method, url, headers or {}, within)


async def until_healthy(url: str, *, within: float, gives_up: Callable[[], bool] = lambda: False) -> bool:
    """Wait until `GET /health` answers 200; False when it does not in that time, or waiting is of no use."""
    try:
        async with asyncio.timeout(within):
            while not await _is_healthy(url):
                if gives_up():
                    return False
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        return False
    return True


async def _is_healthy(url: str) -> bool:
    try:
        status, _ = await call("GET", f"{url}/health")
    except OSError:
        return False
    return status == 200


def _call(method: str, url: str, headers: Mapping[str, str], within: float) -> tuple[int, bytes]:
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=within)
    try:
        connection.request(method, parts.path or "/", headers=dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read()
    except http.client.HTTPException as err:
        raise OSError(str(err) or type(err).__name__) from err
    finally:
        connection.close()
