"""Calls to apps: HTTP/1.1 with kept connections, small because it is the engine's hot path.

`https` goes through httpx. Raises NotReachedError when the app cannot have seen the request, and
BrokenError when it may have.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

import httptools
import httpx

from flowctl.engine.outgoing import Outgoing

CONNECT_SECONDS = 5.0
REPLY_SECONDS = 2 * 3600.0
REDIRECTS = 4
_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class NotReachedError(OSError):
    """Nothing listens there (yet)."""


class BrokenError(OSError):
    """The connection ended before the answer did."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers by lower-case name, body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class _Parser:
    """Collects one response."""

    headers: dict[str, str] = field(default_factory=dict[str, str])
    body: bytearray = field(default_factory=bytearray)
    complete: bool = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, chunk: bytes) -> None:
        self.body += chunk

    def on_message_complete(self) -> None:
        self.complete = True


class Transport:
    """Kept connections by host and port."""

    def __init__(self) -> None:
        self._idle: dict[tuple[str, int], list[_Connection]] = defaultdict(list)

    async def send(self, request: Outgoing) -> Answer:
        """`request` for one that was made before."""
        return await self.request(request.method, request.url, headers=request.headers, body=request.body)

    async def request(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes = b""
    ) -> Answer:
        """One request and its whole answer; follows redirects that keep the method."""
        for _ in range(REDIRECTS):
            answer = await self._request(method, url, headers, body)
            if answer.status not in {307, 308} or "location" not in answer.headers:
                return answer
            url = urljoin(url, answer.headers["location"])
        raise BrokenError(f"{url}: too many redirects")

    async def _request(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        parts = urlsplit(url)
        if parts.scheme == "https":
            return await _over_tls(method, url, headers, body)
        key = (parts.hostname or "127.0.0.1", parts.port or 80)
        head = _head(method, parts, headers, len(body))
        while self._idle[key]:
            connection = self._idle[key].pop()
            if connection[0].at_eof() or connection[1].is_closing():
                connection[1].close()
                continue
            try:
                return await self._exchange(key, connection, head + body)
            except _StaleError:
                continue
        try:
            connection = await asyncio.wait_for(asyncio.open_connection(*key), CONNECT_SECONDS)
        except (OSError, TimeoutError) as err:
            raise NotReachedError(f"{url}: {err}") from err
        try:
            return await self._exchange(key, connection, head + body)
        except _StaleError as err:
            raise BrokenError(f"{url}: {err}") from err

    async def close(self) -> None:
        """Drop the idle connections."""
        writers = [writer for connections in self._idle.values() for _, writer in connections]
        self._idle.clear()
        for writer in writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)

    async def _exchange(self, key: tuple[str, int], connection: _Connection, message: bytes) -> Answer:
        reader, writer = connection
        keep = False
        try:
            writer.write(message)
            answer, keep = await asyncio.wait_for(_read(reader), REPLY_SECONDS)
        except TimeoutError as err:
            raise BrokenError("no answer within two hours") from err
        except ConnectionError as err:
            raise _StaleError(str(err)) from err
        else:
            return answer
        finally:
            if keep:
                self._idle[key].append(connection)
            else:
                writer.close()


class _StaleError(OSError):
    """The connection ended before a byte of the answer: a kept one may simply have been old."""


async def _read(reader: asyncio.StreamReader) -> tuple[Answer, bool]:
    collected = _Parser()
    parser: Any = httptools.HttpResponseParser(collected)
    begun = False
    while not collected.complete:
        data = await reader.read(65_536)
        if not data:
            if not begun:
                raise _StaleError("the connection was closed")
            break
        begun = True
        parser.feed_data(data)
    length_known = "content-length" in collected.headers or "transfer-encoding" in collected.headers
    if not collected.complete and length_known:
        raise BrokenError("the connection was closed in the middle of the answer")
    keep = collected.complete and bool(parser.should_keep_alive())
    return Answer(parser.get_status_code(), collected.headers, bytes(collected.body)), keep


def _head(method: str, parts: SplitResult, headers: Mapping[str, str], length: int) -> bytes:
    path = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
    lines = [f"{method} {path} HTTP/1.1", f"host: {parts.netloc}", f"content-length: {length}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


async def _over_tls(method: str, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
    timeout = httpx.Timeout(REPLY_SECONDS, connect=CONNECT_SECONDS)
    try:
        async with httpx.AsyncClient(timeout=timeout, verify=ssl.create_default_context()) as http:
            answer = await http.request(method, url, headers=dict(headers), content=body)
    except httpx.ConnectError as err:
        raise NotReachedError(f"{url}: {err}") from err
    except httpx.HTTPError as err:
        raise BrokenError(f"{url}: {err}") from err
    return Answer(answer.status_code, {k.lower(): v for k, v in answer.headers.items()}, answer.content)
