"""Realtime channels: messages go to the subscribers of their topic, in this process and at once.

Called by `realtime_api`. Nothing is kept: who is not connected misses what is published.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from flowctl.engine import tokens
from flowctl.engine.protocol import ACCOUNT_ID, ENVIRONMENT_ID, iso, new_ulid

BACKLOG = 1000
TOKEN_SECONDS = 60
ISSUER = "rt.inngest.com"
TOKEN_SECRET = "realtime tokens"  # noqa: S105 - the name of one
RAW_TOPIC = "$stream"
Topic = tuple[str, str]


class InvalidTokenError(ValueError):
    """The token was not made here, or is too old."""


class Raw(bytes):
    """Bytes that are no message: they are written as they are."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a message goes and what it belongs to."""

    channel: str
    topic: str
    run_id: str | None = None
    metadata: Any = None

    def message(self, kind: str, data: Any, *, now: int) -> bytes:
        """A message as subscribers read it."""
        return orjson.dumps(self._common(kind, data) | {"created_at": iso(now)} | self._metadata())

    def chunk(self, stream_id: str, data: str) -> bytes:
        """A piece of a stream that a message has opened."""
        return orjson.dumps(self._common("chunk", data) | {"stream_id": stream_id})

    def _common(self, kind: str, data: Any) -> dict[str, Any]:
        run = {"run_id": self.run_id} if self.run_id else {}
        place = {"channel": self.channel, "topic": self.topic, "env_id": ENVIRONMENT_ID}
        return {"kind": kind, "data": data} | place | run

    def _metadata(self) -> dict[str, Any]:
        return {} if self.metadata is None else {"metadata": self.metadata}


@dataclass(eq=False, slots=True)
class Subscriber:
    """One connection: what waits to be written to it, and its topics."""

    waiting: asyncio.Queue[bytes] = field(default_factory=lambda: asyncio.Queue[bytes](BACKLOG))
    topics: set[Topic] = field(default_factory=set[Topic])

    def put(self, data: bytes) -> None:
        """Queue something; who does not read loses the oldest."""
        if self.waiting.full():
            self.waiting.get_nowait()
        self.waiting.put_nowait(data)


@dataclass(slots=True)
class Realtime:
    """Who listens to what."""

    subscribers: dict[Topic, set[Subscriber]] = field(
        default_factory=lambda: defaultdict[Topic, set[Subscriber]](set)
    )

    def subscribe(self, subscriber: Subscriber, topics: Iterable[Topic]) -> None:
        """Add topics to those of a connection."""
        for topic in topics:
            subscriber.topics.add(topic)
            self.subscribers[topic].add(subscriber)

    def unsubscribe(self, subscriber: Subscriber, topics: Iterable[Topic]) -> None:
        """Take topics from those of a connection."""
        for topic in tuple(topics):
            subscriber.topics.discard(topic)
            self.subscribers[topic].discard(subscriber)
            if not self.subscribers[topic]:
                del self.subscribers[topic]

    def publish(self, address: Address, data: bytes) -> None:
        """Pass on what was made by an address."""
        for subscriber in self.subscribers.get((address.channel, address.topic), ()):
            subscriber.put(data)


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens that name topics, signed with a key of the engine's."""

    key: bytes

    def made(self, topics: Iterable[Topic], *, now: int, publish: bool = False) -> str:
        """A token to subscribe to topics (or to publish), good for a minute."""
        second = now // 1000
        claims = {
            "iss": ISSUER,
            "sub": ACCOUNT_ID,
            "exp": second + TOKEN_SECONDS,
            "iat": second,
            "jti": new_ulid(now),
            "env": ENVIRONMENT_ID,
            "topics": [
                {"kind": "run", "env_id": ENVIRONMENT_ID, "channel": channel, "name": name}
                for channel, name in topics
            ],
            "publish": publish,
        }
        return tokens.signed(claims, self.key)

    def claims(self, token: str, *, now: int) -> Mapping[str, Any]:
        """What a token says; raises InvalidTokenError."""
        claims = tokens.claims_of(token, self.key)
        if claims is None or claims.get("iss") != ISSUER:
            raise InvalidTokenError("The realtime token is invalid: get one from /v1/realtime/token.")
        if claims["exp"] < now // 1000:
            raise InvalidTokenError("The realtime token has expired: get a new one from /v1/realtime/token.")
        return claims

    def topics(self, token: str, *, now: int) -> list[Topic]:
        """The topics that a token names; raises InvalidTokenError."""
        return topics_of(self.claims(token, now=now)["topics"])


def topics_of(raw: Any) -> list[Topic]:
    """`[{"channel": …, "name": …}]` as topics; raises ValueError for other shapes."""
    try:
        return [(str(entry["channel"]), str(entry["name"])) for entry in raw]
    except (KeyError, TypeError) as err:
        raise ValueError("Invalid request: must provide a list of topics") from err
