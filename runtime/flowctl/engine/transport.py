"""Calls to apps: HTTP/1.1 with kept connections, small because it is the engine's hot path.

Raises NotReachedError when the app cannot have seen the request, BrokenError when it may have,
TooLargeError for an answer that is cut off, and MalformedError for a request that is none.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any, NamedTuple, Protocol, cast
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urljoin, urlsplit

import httptools

from flowctl.engine.budget import SMALL, ByteBudget
from flowctl.engine.outgoing import Outgoing

CONNECT_SECONDS = 5.0
REPLY_SECONDS = 2 * 3600.0
IDLE_SECONDS = 2.0
"""How long a connection is kept unused: less than the five seconds after which many servers close theirs."""
MOST_IDLE = 1_000
"""Connections that are kept unused, to all places together."""
MAX_ANSWER_BYTES = 8 * 2**20
"""Of one answer, head included."""
TOO_LARGE = "Your function's response body exceeds the maximum size limit"
ANSWERS_BYTES = 64 * 2**20
"""Of the larger answers that are read at once, together: what others send waits in their sockets."""
LARGE_ANSWER_SECONDS = 600.0
"""How long a larger answer may take once there is room for it: a slow app may not keep that from others."""
JOINED_BYTES = 64 * 2**10
"""Up to this a request is written in one piece, which is quicker; a larger one without copying it."""
REDIRECTS = 60
"""Some hosts answer what takes long by one redirect after another until it is done."""
SEE_OTHER = 303
REDIRECTED = frozenset({301, 302, SEE_OTHER, 307, 308})
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_URL_CHARACTERS = "".join(map(chr, range(0x21, 0x7F)))
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[^\r\n]*", re.IGNORECASE)


class NotReachedError(OSError):
    """Nothing listens there (yet)."""


class BrokenError(OSError):
    """The connection ended before the answer did."""


class StaleError(BrokenError):
    """A kept connection ended before the first byte of an answer: it may simply have been old."""


class TooLargeError(OSError):
    """The answer exceeds `MAX_ANSWER_BYTES`."""


class MalformedError(OSError):
    """The request would be no HTTP, or more than one request."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers by lower-case name, body."""

    status: int
    headers: Mapping[str, str]
    body: bytes | bytearray


class Carrier(Protocol):
    """Brings requests to apps and their answers back; a way other than HTTP is another one of these."""

    async def send(self, request: Outgoing) -> Answer:
        """The app's answer; raises the errors of this file."""
        ...

    async def close(self) -> None:
        """Give up what is open."""
        ...


class _Place(NamedTuple):
    host: str
    port: int
    is_tls: bool


class Transport:
    """Kept connections by place; an answer has to be there within `reply_seconds`."""

    def __init__(
        self,
        reply_seconds: float = REPLY_SECONDS,
        answers_bytes: int = ANSWERS_BYTES,
        most_idle: int = MOST_IDLE,
    ) -> None:
        self._reply_seconds, self._most_idle = reply_seconds, most_idle
        self.answers = ByteBudget(answers_bytes)
        self._idle: dict[_Place, list[_Connection]] = {}
        self._idle_count, self._swept_at = 0, 0.0

    async def send(self, request: Outgoing) -> Answer:
        """A request's whole answer, decompressed; follows redirects."""
        asked = request.url
        for _ in range(REDIRECTS):
            answer = await self._request(request)
            if answer.status not in REDIRECTED or "location" not in answer.headers:
                return _plain(answer)
            request = replace(request, url=_redirected(request.url, answer.headers["location"], asked))
            if answer.status == SEE_OTHER:
                request = replace(request, method="GET", body=())
        raise BrokenError(f"{request.url}: too many redirects")

    async def request(
        self, method: str, url: str, *, headers: Mapping[str, str], body: bytes = b""
    ) -> Answer:
        """`send` for a request that is not made yet."""
        return await self.send(Outgoing(method, url, headers, (body,)))

    async def close(self) -> None:
        """Drop the idle connections."""
        connections = [connection for kept in self._idle.values() for connection in kept]
        self._idle.clear()
        self._idle_count = 0
        for connection in connections:
            connection.close()
        await asyncio.gather(*(connection.closed for connection in connections), return_exceptions=True)

    async def _request(self, request: Outgoing) -> Answer:
        parts, place = _parts(request.url)
        length = sum(map(len, request.body))
        head = _head(request.method, parts, request.headers, length)
        connection = self._kept(place) or await _connect(place, request.url, self.answers)
        answer = await connection.exchange(head, request.body, length, within=self._reply_seconds)
        if connection.is_open:
            self._keep(place, connection)
        return answer

    def _kept(self, place: _Place) -> _Connection | None:
        kept = self._idle.get(place)
        while kept:
            connection = kept.pop()
            self._idle_count -= 1
            if connection.is_fresh(connection.loop.time()):
                return connection
            connection.close()
        return None

    def _keep(self, place: _Place, connection: _Connection) -> None:
        """Keep a connection for the next request to its place, if there is room for it."""
        now = connection.idle_since = connection.loop.time()
        if now - self._swept_at >= IDLE_SECONDS:
            self._sweep(now)
        if self._idle_count < self._most_idle:
            self._idle.setdefault(place, []).append(connection)
            self._idle_count += 1
        else:
            connection.close()

    def _sweep(self, now: float) -> None:
        """Close what was idle for too long, also at places that are called no more."""
        for connection in (connection for kept in self._idle.values() for connection in kept):
            if not connection.is_fresh(now):
                connection.close()
        fresh = ((place, [c for c in kept if c.is_open]) for place, kept in self._idle.items())
        self._idle, self._swept_at = {place: kept for place, kept in fresh if kept}, now
        self._idle_count = sum(map(len, self._idle.values()))


class _Connection(asyncio.Protocol):
    """One connection, one exchange at a time."""

    def __init__(self, answers: ByteBudget) -> None:
        self.loop = asyncio.get_running_loop()
        self._answers = answers
        self.closed: asyncio.Future[None] = self.loop.create_future()
        self.idle_since = 0.0
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[Answer] | None = None
        self._exchanges = 0
        self._parser: Any = None

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def is_fresh(self, now: float) -> bool:
        """Whether another request may be sent on it."""
        return self.is_open and now - self.idle_since < IDLE_SECONDS

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    async def exchange(self, head: bytes, body: Sequence[bytes], length: int, *, within: float) -> Answer:
        """Send a request, wait for its answer."""
        if self._transport is None:
            raise StaleError("the connection is closed")
        self._exchanges += 1
        self._headers: dict[str, str] = {}
        self._body, self._received = bytearray(), 0
        self._has_begun = self._keeps = False
        self._granted: asyncio.Future[None] | None = None
        self._old_head: bytearray | None = None
        self._has_body = not head.startswith(b"HEAD ")
        self._parser = httptools.HttpResponseParser(self)
        waiting = self._waiting = self.loop.create_future()
        self._end_within(within)
        try:
            if length > JOINED_BYTES:
                self._transport.writelines((head, *body))
            else:
                self._transport.write(b"".join((head, *body)))
            return await waiting
        except asyncio.CancelledError:
            self._transport.abort()
            raise
        finally:
            self._forget()

    def _forget(self) -> None:
        """End an exchange: nothing of it is kept but the connection."""
        self._deadline.cancel()
        self._waiting = None
        self._body = bytearray()
        if not self._keeps:
            self.close()
        if self._granted is not None:
            self._give_room_back(self._granted)

    def _end_within(self, seconds: float) -> None:
        error = BrokenError(f"no answer within {seconds:g} s")
        self._deadline = self.loop.call_later(seconds, self._fail, error)

    def _make_room(self) -> None:
        """Have the rest of a large answer wait in its socket until there is room for the whole."""
        if self._granted is not None or self._transport is None:
            return
        size = min(int(self._headers.get("content-length", MAX_ANSWER_BYTES)), MAX_ANSWER_BYTES)
        self._room = self._answers.lease()
        self._granted = self._answers.queue(self._room, size)
        if not self._granted.done():
            self._transport.pause_reading()
        self._granted.add_done_callback(self._go_on)

    def _give_room_back(self, granted: asyncio.Future[None]) -> None:
        granted.cancel()
        self._granted = None
        self._room.resize(0)
        self._resume()

    def _go_on(self, granted: asyncio.Future[None]) -> None:
        if granted is self._granted:
            self._resume()
            self._deadline.cancel()
            self._end_within(LARGE_ANSWER_SECONDS)

    def _resume(self) -> None:
        if self._transport is not None and self.is_open:
            self._transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it

    def data_received(self, data: bytes) -> None:
        if self._waiting is None or self._waiting.done():  # an answer that nobody asked for
            self.close()
            return
        if not self._has_begun and data.startswith(b"HTTP/1.0"):
            self._old_head = bytearray()
        self._has_begun = True
        self._received += len(data)
        if self._received > MAX_ANSWER_BYTES:
            self._fail(TooLargeError(TOO_LARGE))
            return
        try:
            self._parser.feed_data(data if self._old_head is None else self._unchunked(data))
        except httptools.HttpParserError as err:
            self._fail(BrokenError(f"what came is no HTTP answer: {err}"))
        if self._received >= SMALL and not self._waiting.done():
            self._make_room()

    def _unchunked(self, data: bytes) -> bytes:
        """HTTP/1.0 has no chunks: what a proxy says of those it took apart is left out of the head."""
        self._old_head = (self._old_head or bytearray()) + data
        head, end, body = self._old_head.partition(b"\r\n\r\n")
        if not end:
            return b""
        self._old_head = None
        return _CHUNKED.sub(b"", head) + end + body

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)
        if not self._has_begun_answer():
            kind = StaleError if self._exchanges > 1 else BrokenError
            self._fail(kind(f"the connection was closed before the answer: {exc or 'end of file'}"))
        elif "content-length" in self._headers or "transfer-encoding" in self._headers:
            self._fail(BrokenError("the connection was closed in the middle of the answer"))
        else:
            self._complete()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Of the parser."""
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Of the parser, which would wait for the body that an answer to HEAD names but does not have."""
        if not self._has_body:
            self._complete()

    def on_body(self, chunk: bytes) -> None:
        """Of the parser."""
        self._body += chunk

    def on_message_complete(self) -> None:
        """Of the parser, which knows only now whether the connection is kept."""
        self._keeps = bool(self._parser.should_keep_alive())
        self._complete()

    def _has_begun_answer(self) -> bool:
        return self._waiting is not None and self._has_begun and bool(self._headers)

    def _complete(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            answer = Answer(self._parser.get_status_code(), self._headers, self._body)
            self._body = bytearray()
            self._waiting.set_result(answer)

    def _fail(self, error: OSError) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)


async def _connect(place: _Place, url: str, answers: ByteBudget) -> _Connection:
    loop = asyncio.get_running_loop()
    tls = _trusted() if place.is_tls else None
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, connection = await loop.create_connection(
                lambda: _Connection(answers), place.host, place.port, ssl=tls
            )
    except OSError as err:  # a TimeoutError is one
        raise NotReachedError(f"{url.partition('?')[0]}: {str(err) or 'no connection in time'}") from err
    return connection


def _redirected(url: str, location: str, asked: str) -> str:
    """Where a redirect leads, with the first URL's query, which says what is called."""
    target = urlsplit(urljoin(url, location))
    kept = dict(parse_qsl(urlsplit(asked).query, keep_blank_values=True))
    given = [pair for pair in parse_qsl(target.query, keep_blank_values=True) if pair[0] not in kept]
    return target._replace(query=urlencode([*given, *kept.items()])).geturl() if kept else target.geturl()


def _plain(answer: Answer) -> Answer:
    """An answer as it was before a proxy compressed it, which the engine does not ask for."""
    encoding = answer.headers.get("content-encoding", "identity").strip().lower()
    if encoding in {"", "identity"} or not answer.body:
        return answer
    if encoding != "gzip":
        raise BrokenError(f"the answer has the content encoding {encoding!r}, which was not asked for")
    headers = {name: value for name, value in answer.headers.items() if name != "content-encoding"}
    return replace(answer, headers=headers, body=_unpacked(answer.body))


def _unpacked(body: bytes | bytearray) -> bytes:
    unpacking = zlib.decompressobj(wbits=31)
    try:
        unpacked = unpacking.decompress(body, MAX_ANSWER_BYTES)
    except zlib.error as err:
        raise BrokenError(f"the answer is no gzip as it says: {err}") from err
    if unpacking.unconsumed_tail:
        raise TooLargeError(TOO_LARGE)
    if not unpacking.eof:
        raise BrokenError("the answer's gzip ends too early")
    return unpacked


@cache
def _trusted() -> ssl.SSLContext:
    return ssl.create_default_context()


@lru_cache(maxsize=1024)
def _parts(url: str) -> tuple[SplitResult, _Place]:
    parts = urlsplit(quote(url, safe=_URL_CHARACTERS))
    is_tls = parts.scheme == "https"
    return parts, _Place(parts.hostname or "127.0.0.1", parts.port or (443 if is_tls else 80), is_tls)


@lru_cache(maxsize=1024)
def _is_token(text: str) -> bool:
    return _TOKEN.fullmatch(text) is not None


def _head(method: str, parts: SplitResult, headers: Mapping[str, str], length: int) -> bytes:
    path = f"{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
    if not _is_token(method):
        raise MalformedError(f"{method!r} is no HTTP method")
    lines = [f"{method} {path} HTTP/1.1", f"host: {parts.netloc}", f"content-length: {length}"]
    for name, value in headers.items():
        if not _is_token(name):
            raise MalformedError(f"{name!r} is no name of an HTTP header")
        if _CONTROL.search(value):
            raise MalformedError(f"the header {name!r} has a line break or another control character")
        lines.append(f"{name}: {value}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
