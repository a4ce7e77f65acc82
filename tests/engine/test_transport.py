"""What the engine makes of apps' answers, byte by byte."""

from __future__ import annotations

import asyncio

import pytest

from flowctl.engine.transport import BrokenError, Transport


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
