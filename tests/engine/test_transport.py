"""What the engine makes of apps' answers, byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from flowctl.engine.transport import (
    IDLE_SECONDS,
    MAX_ANSWER_BYTES,
    Answer,
    BrokenError,
    MalformedError,
    NotReachedError,
    TooLargeError,
    Transport,
)

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def answer_to(*parts: bytes, method: str = "POST") -> Answer:
    """The answer that a server sends in these parts before it closes the connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()

    async with served(serve) as (transport, url):
        return await transport.request(method, url, headers={})


@contextlib.asynccontextmanager
async def served(serve: Serve) -> AsyncIterator[tuple[Transport, str]]:
    """A transport, and the URL of a server that answers each connection this way."""
    transport = Transport(reply_seconds=10)
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        try:
            yield transport, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        finally:
            await transport.close()


@pytest.mark.parametrize("cut", [9, 30, 60])
async def test_an_old_proxy_that_took_chunks_apart_but_says_chunked_is_understood(cut):
    sent = b"HTTP/1.0 206 X\r\nContent-Type: a/b\r\nTransfer-Encoding: chunked\r\n\r\n" + b'{"a": 1}'
    answer = await answer_to(sent[:cut], sent[cut:])
    assert (answer.status, answer.body) == (206, b'{"a": 1}')


async def test_chunks_are_joined():
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    assert (await answer_to(head, b"2\r\nab\r\n", b"1\r\nc\r\n0\r\n\r\n")).body == b"abc"


@pytest.mark.parametrize(
    "sent", [b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", b"HTTP/1.0 200 OK\r\nConte", b"hello"]
)
async def test_an_answer_that_ends_too_early_or_is_none_is_a_broken_connection(sent):
    with pytest.raises(BrokenError):
        await answer_to(sent)


async def sent_by(method: str, path: str, headers: dict[str, str]) -> bytes:
    """The head of a request as it reaches a server."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()

    transport = Transport()
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}{path}"
        await transport.request(method, url, headers=headers)
        await transport.close()
    return heads[0]


@pytest.mark.parametrize(
    ("method", "headers", "part"),
    [
        ("POST", {"x-mine": "1\r\nx-other: 2"}, "'x-mine' has a line break"),
        ("POST", {"x-mine": "1\n"}, "'x-mine' has a line break"),
        ("POST", {"x: 1\r\nx-mine": ""}, "no name of an HTTP header"),
        ("GET / HTTP/1.1\r\nx:", {}, "no HTTP method"),
    ],
)
async def test_what_would_be_more_than_one_header_is_not_sent(method, headers, part):
    with pytest.raises(MalformedError, match=part):
        await sent_by(method, "/", headers)


async def test_what_is_not_ascii_is_sent_as_utf8_and_in_urls_by_percent_signs():
    head = await sent_by("POST", "/ä b?q=%20日", {"x-mine": "日"})
    assert head.startswith(b"POST /%C3%A4%20b?q=%20%E6%97%A5 HTTP/1.1\r\n")
    assert "\r\nx-mine: 日\r\n".encode() in head


async def test_an_answer_to_head_has_no_body_whatever_length_it_names():
    answer = await answer_to(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", method="HEAD")
    assert (answer.headers["content-length"], answer.body) == ("9", b"")


def compressed(body: bytes, encoding: bytes = b"gzip") -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-encoding: %b\r\ncontent-length: %d\r\n\r\n%b" % (
        encoding,
        len(body),
        body,
    )


async def test_what_a_proxy_has_compressed_is_unpacked():
    answer = await answer_to(compressed(gzip.compress(b"abc")))
    assert (answer.body, "content-encoding" in answer.headers) == (b"abc", False)


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (compressed(gzip.compress(bytes(MAX_ANSWER_BYTES + 1))), TooLargeError),
        (compressed(gzip.compress(b"abc")[:-9]), BrokenError),
        (compressed(b"abc"), BrokenError),
        (compressed(b"abc", b"br"), BrokenError),
    ],
    ids=["too large", "cut off", "not packed", "unknown encoding"],
)
async def test_what_cannot_be_unpacked_is_no_answer(sent: bytes, error: type[OSError]):
    with pytest.raises(error):
        await answer_to(sent)


@pytest.mark.parametrize(
    ("status", "method"), [(301, "POST"), (302, "POST"), (303, "GET"), (307, "POST"), (308, "POST")]
)
async def test_a_redirect_is_followed_with_the_query_that_says_what_is_called(status: int, method: str):
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head.partition(b" HTTP")[0])
        redirect = (
            b"HTTP/1.1 %d X\r\nconnection: close\r\nlocation: /there?call=1\r\ncontent-length: 0\r\n\r\n"
            % status
        )
        writer.write(redirect if len(asked) == 1 else b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    async with served(serve) as (transport, url):
        await transport.request("POST", f"{url}?fnId=f", headers={}, body=b"{}")
    assert asked == [b"POST /?fnId=f", f"{method} /there?call=1&fnId=f".encode()]


async def test_a_connection_that_does_not_come_about_in_time_is_told_with_its_reason_and_without_its_query(
    monkeypatch,
):
    monkeypatch.setattr("flowctl.engine.transport.CONNECT_SECONDS", 0.0)
    with pytest.raises(NotReachedError) as failed:
        await Transport().request("POST", "http://127.0.0.1:1/api/inngest?fnId=f&stepId=s", headers={})
    assert str(failed.value) == "http://127.0.0.1:1/api/inngest: no connection in time"


async def keep_alive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer every request of a connection, until its sender closes it."""
    with contextlib.suppress(asyncio.IncompleteReadError):
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    writer.close()


async def test_connections_that_are_kept_for_later_are_bounded():
    async with served(keep_alive) as (transport, url):
        transport._most_idle = 2
        await asyncio.gather(*(transport.request("GET", url, headers={}) for _ in range(5)))
        kept = [connection for kept in transport._idle.values() for connection in kept]
        assert (len(kept), all(connection.is_open for connection in kept)) == (2, True)
        await transport.request("GET", url, headers={})
        assert sum(map(len, transport._idle.values())) == 2


async def test_connections_to_a_place_that_is_called_no_more_are_closed():
    async with (
        served(keep_alive) as (transport, url),
        await asyncio.start_server(keep_alive, "127.0.0.1", 0) as other,
    ):
        await transport.request("GET", f"http://127.0.0.1:{other.sockets[0].getsockname()[1]}/", headers={})
        [[old]] = transport._idle.values()
        old.idle_since = transport._swept_at = -IDLE_SECONDS
        await transport.request("GET", url, headers={})
        assert (old.is_open, len(transport._idle)) == (False, 1)
