"""The routes of realtime: tokens, publishing (messages, streams, raw bytes), subscribers."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from flowctl.engine.access import bearer
from flowctl.engine.answers import BodyTooLargeError, RequestError, json_answer, read_body, read_json, refused
from flowctl.engine.protocol import new_ulid, parsed_json
from flowctl.engine.realtime import (
    RAW_TOPIC,
    Address,
    InvalidTokenError,
    Raw,
    Realtime,
    Subscriber,
    Tokens,
    topics_of,
)
from flowctl.engine.signing import Keys
from flowctl.engine.timing import Clock

MESSAGE_LIMIT = 512 * 2**10
STREAM_LIMIT = 2**20
CHUNK_BYTES = 2**10
LINES = "application/x-ndjson"
_PUBLISHED = {"accept-post": f"application/json, {LINES}"}
"""Tells publishers that they may send several messages in one request."""
SSE_SECONDS, KEEPALIVE_SECONDS = 15 * 60, 15


class NotAuthenticatedError(RequestError):
    """No token and no key, or not the right one."""

    http_status = 401


@dataclass(slots=True)
class RealtimeApi:
    """One method a route."""

    keys: Keys
    tokens: Tokens
    clock: Clock
    realtime: Realtime = field(default_factory=Realtime)

    def routes(self) -> list[BaseRoute]:
        """The route table."""
        return [
            Route("/v1/realtime/token", self.token, methods=["POST"]),
            Route("/v1/realtime/publish", self.publish, methods=["POST"]),
            Route("/v1/realtime/publish/tee", self.publish_raw, methods=["POST"]),
            Route("/v1/realtime/sse", self.sse),
            WebSocketRoute("/v1/realtime/connect", self.connect),
        ]

    async def token(self, request: Request) -> Response:
        """A token to subscribe to topics of channels; only the bearer of a signing key gets one."""
        if not self.keys.lets_in(bearer(dict(request.scope["headers"]))):
            raise NotAuthenticatedError("Not authenticated: a signing key is needed.")
        try:
            topics = topics_of(await read_json(request))
        except ValueError as err:
            raise RequestError(str(err)) from err
        return json_answer({"jwt": self.tokens.made(topics, now=self.clock.now())}, 201)

    async def publish(self, request: Request) -> Response:
        """Pass on the body, JSON or text; one of type `text/stream` goes on piece by piece.

        Each line of newline-delimited JSON is a message.
        """
        self._check_publisher(request)
        addresses, kind = _addresses(request), request.headers.get("content-type")
        if kind == "text/stream":
            await self._pass_on(request, addresses)
            return PlainTextResponse("", headers=_PUBLISHED)
        body = await read_body(request, limit=MESSAGE_LIMIT)
        for message in body.splitlines() if kind == LINES else (body,):
            data = _data(message)
            for address in addresses:
                self.realtime.publish(address, address.message("data", data, now=self.clock.now()))
        return PlainTextResponse("", headers=_PUBLISHED)

    async def publish_raw(self, request: Request) -> Response:
        """Pass on the body's bytes as they come to those who read the channel by SSE."""
        self._check_publisher(request)
        channel = request.query_params.get("channel")
        if not channel:
            raise RequestError("channel query parameter required")
        address, size = Address(channel, RAW_TOPIC), 0
        async for piece in request.stream():
            size += len(piece)
            if size > STREAM_LIMIT:
                raise BodyTooLargeError(STREAM_LIMIT)
            self.realtime.publish(address, Raw(piece))
        return PlainTextResponse("")

    async def connect(self, websocket: WebSocket) -> None:
        """Serve one subscriber until it leaves; it may ask for more topics, or fewer."""
        try:
            topics = self.tokens.topics(_token(websocket), now=self.clock.now())
        except InvalidTokenError as err:
            await websocket.send_denial_response(refused(str(err), 401))
            return
        await websocket.accept()
        subscriber = Subscriber()
        self.realtime.subscribe(subscriber, topics)
        sender = asyncio.create_task(_forward(subscriber, websocket))
        try:
            while True:
                self._heard(subscriber, await websocket.receive_text())
        except (WebSocketDisconnect, KeyError):  # KeyError: a binary frame, which has no text
            return
        finally:
            sender.cancel()
            self.realtime.unsubscribe(subscriber, subscriber.topics)

    async def sse(self, request: Request) -> Response:
        """Serve one subscriber by server-sent events, a quarter of an hour at most."""
        try:
            topics = self.tokens.topics(_token(request), now=self.clock.now())
        except InvalidTokenError as err:
            raise NotAuthenticatedError(str(err)) from err
        headers = {"cache-control": "no-cache", "access-control-allow-origin": "*"}
        return StreamingResponse(self._events(topics), headers=headers, media_type="text/event-stream")

    async def _events(self, topics: list[tuple[str, str]]) -> AsyncIterator[bytes]:
        subscriber, loop = Subscriber(), asyncio.get_running_loop()
        end = loop.time() + SSE_SECONDS
        self.realtime.subscribe(subscriber, topics)
        try:
            while (left := end - loop.time()) > 0:
                yield await _next_event(subscriber, min(left, KEEPALIVE_SECONDS))
        finally:
            self.realtime.unsubscribe(subscriber, subscriber.topics)

    async def _pass_on(self, request: Request, addresses: list[Address]) -> None:
        stream_id, size = new_ulid(self.clock.now()), 0
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._mark("datastream-start", stream_id, addresses)
        try:
            async for piece in request.stream():
                size += len(piece)
                if size > STREAM_LIMIT:
                    raise BodyTooLargeError(STREAM_LIMIT)
                for start in range(0, len(piece), CHUNK_BYTES):
                    self._chunk(stream_id, decoder.decode(piece[start : start + CHUNK_BYTES]), addresses)
            self._chunk(stream_id, decoder.decode(b"", final=True), addresses)
        finally:
            self._mark("datastream-end", stream_id, addresses)

    def _mark(self, kind: str, stream_id: str, addresses: list[Address]) -> None:
        for address in addresses:
            self.realtime.publish(address, address.message(kind, stream_id, now=self.clock.now()))

    def _chunk(self, stream_id: str, text: str, addresses: list[Address]) -> None:
        for address in addresses:
            if text:
                self.realtime.publish(address, address.chunk(stream_id, text))

    def _heard(self, subscriber: Subscriber, text: str) -> None:
        """A subscriber's `sub` (data: a token) or `unsub` (data: topics); others are ignored."""
        try:
            message = orjson.loads(text)
            kind, data = message["kind"], message["data"]
            if kind == "sub":
                self.realtime.subscribe(subscriber, self.tokens.topics(str(data), now=self.clock.now()))
            elif kind == "unsub":
                self.realtime.unsubscribe(subscriber, topics_of(data))
        except (KeyError, TypeError, ValueError):
            return

    def _check_publisher(self, request: Request) -> None:
        given = bearer(dict(request.scope["headers"]))
        if self.keys.lets_in(given):
            return
        try:
            may = self.tokens.claims(given.removeprefix("Bearer "), now=self.clock.now())["publish"]
        except InvalidTokenError as err:
            raise NotAuthenticatedError("Not authenticated: a signing key is needed to publish.") from err
        if not may:
            raise NotAuthenticatedError("Not authenticated for publishing")


def _token(connection: HTTPConnection) -> str:
    given = connection.headers.get("authorization", "").removeprefix("Bearer ")
    return given or connection.query_params.get("token", "")


def _addresses(request: Request) -> list[Address]:
    query = request.query_params
    metadata = _data(query["metadata"].encode()) if "metadata" in query else None
    topics = query.getlist("topic") or [""]
    return [Address(query.get("channel", ""), topic, query.get("run_id"), metadata) for topic in topics]


def _data(body: bytes) -> Any:
    """JSON as it is, anything else as text."""
    try:
        return parsed_json(body)
    except ValueError:
        return body.decode(errors="replace")


async def _next_event(subscriber: Subscriber, seconds: float) -> bytes:
    """What is written next: a message as an event, raw bytes as they are, or a sign of life."""
    try:
        async with asyncio.timeout(seconds):
            data = await subscriber.waiting.get()
    except TimeoutError:
        return b":\n\n"
    return data if isinstance(data, Raw) else b"data: " + data + b"\n\n"


async def _forward(subscriber: Subscriber, websocket: WebSocket) -> None:
    while True:
        await websocket.send_text((await subscriber.waiting.get()).decode())
