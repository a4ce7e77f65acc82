"""Realtime channels: published data goes to the WebSockets that subscribed to its topic."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import orjson
from starlette.websockets import WebSocket, WebSocketDisconnect

BACKLOG = 1000
Topic = tuple[str, str]


@dataclass(slots=True)
class Realtime:
    """Who listens to what. Tokens are signed with a key of this process."""

    key: bytes = field(default_factory=lambda: secrets.token_bytes(32))
    listeners: dict[Topic, set[asyncio.Queue[bytes]]] = field(
        default_factory=lambda: defaultdict[Topic, set[asyncio.Queue[bytes]]](set)
    )

    def token(self, topics: Any) -> str:
        """A JWT that names topics: `[{"channel": …, "name": …}]`."""
        claims = _encoded(orjson.dumps({"topics": topics}))
        head = _encoded(b'{"alg":"HS256","typ":"JWT"}')
        return f"{head}.{claims}.{self._signature(f'{head}.{claims}')}"

    def publish(self, channel: str, topic: str, data: Any, *, now: int) -> None:
        """Pass data on; a listener that does not read loses the oldest."""
        message = {"channel": channel, "topic": topic, "data": data, "kind": "data", "created_at": now}
        body = orjson.dumps(message)
        for queue in self.listeners.get((channel, topic), ()):
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(body)

    async def connect(self, websocket: WebSocket) -> None:
        """Serve one subscriber until it leaves."""
        topics = self._topics(websocket.query_params.get("token", ""))
        if topics is None:
            await websocket.close(4401)
            return
        await websocket.accept()
        queue: asyncio.Queue[bytes] = asyncio.Queue(BACKLOG)
        for topic in topics:
            self.listeners[topic].add(queue)
        sender = asyncio.create_task(_forward(queue, websocket))
        try:
            while True:
                await websocket.receive_text()
        except WebSocketDisconnect:
            return
        finally:
            sender.cancel()
            for topic in topics:
                self.listeners[topic].discard(queue)
                if not self.listeners[topic]:
                    del self.listeners[topic]

    def _topics(self, token: str) -> list[Topic] | None:
        signed, _, signature = token.rpartition(".")
        if not hmac.compare_digest(self._signature(signed), signature):
            return None
        claims = orjson.loads(_decoded(signed.partition(".")[2]))
        return [(topic["channel"], topic["name"]) for topic in claims["topics"]]

    def _signature(self, text: str) -> str:
        return _encoded(hmac.new(self.key, text.encode(), hashlib.sha256).digest())


async def _forward(queue: asyncio.Queue[bytes], websocket: WebSocket) -> None:
    while True:
        await websocket.send_text((await queue.get()).decode())


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
