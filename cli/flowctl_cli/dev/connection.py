"""A client's connection to a worker, which changes hands when the worker is replaced.

Where it is plain, the socket itself is passed on. The keys of a TLS connection cannot be: the worker that has
it goes on decrypting for the next one, which answers what comes and asks the client to connect anew.
Used by `dev.server`.
"""

from __future__ import annotations

import asyncio
import json
import socket
from dataclasses import dataclass, field
from typing import Any, cast

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

NOTE_BYTES = 128


@dataclass(frozen=True, slots=True)
class Origin:
    """What a relayed connection is to the app: the client's address."""

    client: tuple[str, int] | None


class Connection(HttpToolsProtocol):
    """Once retired, it changes hands as soon as no request is under way on it."""

    unread = 0
    retired = False
    heir: socket.socket | None = None
    adopted = False
    origin: Origin | None = None
    relays: set[Relay]

    def connection_made(self, transport: asyncio.Transport) -> None:
        """It is accepted, perhaps just when the server retires."""
        super().connection_made(transport)
        if self.origin is not None:
            self.scheme, self.client = "https", self.origin.client
            self.app = _asking_to_connect_anew(self.app)
        if self.retired:
            self.loop.call_soon(self._leave)
        elif self.adopted:  # it was idle, and may stay so no longer than after an answer
            seconds = self.timeout_keep_alive
            self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def on_message_begin(self) -> None:
        """A request begins to arrive."""
        self.unread += 1
        super().on_message_begin()

    def on_message_complete(self) -> None:
        """It has arrived."""
        self.unread -= 1
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """It is answered."""
        super().on_response_complete()
        if self.retired:
            self.loop.call_soon(self._leave)

    def retire(self, heir: socket.socket | None) -> None:
        """Take no new request: go over to the heir, or close."""
        self.retired, self.heir = True, heir
        self._leave()

    def _leave(self) -> None:
        if self._is_idle and not (self.heir is not None and self._hand_over(self.heir)):
            self.transport.close()

    @property
    def _is_idle(self) -> bool:
        cycle: Any = self.cycle  # None before the first request
        answered = cycle is None or cycle.response_complete
        return not self.unread and answered and not self.pipeline and not self.transport.is_closing()

    def _hand_over(self, heir: socket.socket) -> bool:
        """Pass the connection on; what the client sends meanwhile waits in it for the heir."""
        if self.scheme == "https" and self.origin is None:
            return self._relay_to(heir)
        self.transport.pause_reading()
        client: Any = self.transport.get_extra_info("socket")
        if not give(heir, client.fileno(), self.origin):
            return False
        self.transport.close()
        return True

    def _relay_to(self, heir: socket.socket) -> bool:
        ours, theirs = socket.socketpair()
        with theirs:
            if not give(heir, theirs.fileno(), Origin(self.client)):
                ours.close()
                return False
        self._unset_keepalive_if_required()
        self.connections.discard(self)
        Relay.between(self.transport, ours, self.relays)
        return True


@dataclass(eq=False, slots=True)
class Relay(asyncio.Protocol):
    """One direction of a relayed connection: what comes in here goes out at the other end."""

    relays: set[Relay]
    other: asyncio.Transport | None = None
    transport: asyncio.Transport | None = None
    early: bytearray = field(default_factory=bytearray)
    connecting: asyncio.Task[Any] | None = None

    @classmethod
    def between(cls, client: asyncio.Transport, heir: socket.socket, relays: set[Relay]) -> None:
        """Pass on all that the client sends, and all that it is answered."""
        inwards, outwards = cls(relays, transport=client), cls(relays, other=client)
        relays |= {inwards, outwards}
        client.set_protocol(inwards)
        heir.setblocking(False)
        loop = asyncio.get_running_loop()
        outwards.connecting = loop.create_task(loop.create_connection(lambda: outwards, sock=heir))
        outwards.connecting.add_done_callback(lambda _: inwards.begin(outwards))

    def begin(self, outwards: Relay) -> None:
        """The way to the heir is open."""
        self.other = outwards.transport
        if self.other is None:
            self.connection_lost(None)
        elif self.early:
            self.other.write(self.early)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The end that this one reads is there."""
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Pass it on."""
        if self.other is None:
            self.early += data
        else:
            self.other.write(data)

    def pause_writing(self) -> None:
        """This end takes no more for now."""
        if self.other is not None:
            self.other.pause_reading()

    def resume_writing(self) -> None:
        """It does again."""
        if self.other is not None and not self.other.is_closing():
            self.other.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """When one end is gone, so is the other."""
        del exc
        self.relays.discard(self)
        for end in (self.other, self.transport):
            if end is not None:
                end.close()


def give(heir: socket.socket, fd: int, origin: Origin | None) -> bool:
    """Pass a connection on to another worker; False when it takes none."""
    note = json.dumps(origin and {"client": origin.client}).encode().ljust(NOTE_BYTES)
    try:
        socket.send_fds(heir, [note], [fd])
    except OSError:
        return False
    return True


def take(handed_over: socket.socket) -> tuple[socket.socket, Origin | None] | None:
    """A connection that another worker gave, and where it comes from if that worker relays it."""
    note, fds, _, _ = socket.recv_fds(handed_over, NOTE_BYTES, 1)
    if not fds:
        return None
    origin = json.loads(note)
    client = origin and origin["client"]
    return socket.socket(fileno=fds[0]), Origin(client and (client[0], client[1])) if origin else None


def _asking_to_connect_anew(app: Any) -> ASGIApp:
    """The app, with answers that say that the connection ends with them."""

    async def asking(scope: Scope, receive: Receive, send: Send) -> None:
        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["connection"] = "close"
            await send(message)

        await app(scope, receive, marked)

    return asking
