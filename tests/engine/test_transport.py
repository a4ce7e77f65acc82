"""What the engine makes of apps' answers, byte by byte."""

from __future__ import annotations

import asyncio

import pytest

from flowctl.engine.transport import BrokenError, MalformedError, Transport


async def answer_to(*parts: bytes) -> tuple[int, bytes]:
    """Status and body of an answer that a server sends in these parts before it closes the connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()

    transport = Transport()
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        try:
            answer = await transport.request("POST", f"http://127.0.0.1:{port}/", headers={})
        finally:
            await transport.close()
    return answer.status, answer.body


@pytest.mark.parametrize("cut", [9, 30, 60])
async def test_an_old_proxy_that_took_chunks_apart_but_says_chunked_is_understood(cut):
    sent = b"HTTP/1.0 206 X\r\nContent-Type: a/b\r\nTransfer-Encoding: chunked\r\n\r\n" + b'{"a": 1}'
    assert await answer_to(sent[:cut], sent[cut:]) == (206, b'{"a": 1}')


async def test_chunks_are_joined():
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    assert await answer_to(head, b"2\r\nab\r\n", b"1\r\nc\r\n0\r\n\r\n") == (200, b"abc")


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
