"""The HTTP server of a worker: uvicorn, begun and ended in steps, with connections that change hands.

A client's idle connection is passed on to the next worker (`dev.connection`) instead of being closed: a
request that is on its way meanwhile would be lost with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
import time
from collections.abc import Mapping
from functools import partial
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp

from flowctl_cli.dev.connection import Connection, Origin, Relay, take

TICK_SECONDS = 0.05


def with_tls(
    listeners: list[socket.socket], files: Mapping[str, str] | None
) -> list[tuple[socket.socket, ssl.SSLContext | None]]:
    """The first socket is the public one: it alone may speak TLS."""
    context = None
    if files is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(files["certificate"], files["key"])
    return [(listener, context if number == 0 else None) for number, listener in enumerate(listeners)]


class Server:
    """One app on some sockets; `tls` is for those of them that speak it."""

    def __init__(self, app: ASGIApp) -> None:
        config = uvicorn.Config(
            app,
            http=Connection,
            ws="websockets-sansio",
            lifespan="on",
            log_config=None,
            access_log=False,
        )
        config.load()
        self._uvicorn = uvicorn.Server(config)
        self._uvicorn.lifespan = config.lifespan_class(config)
        self._listening: list[socket.socket] = []
        self._ticking: asyncio.Task[None] | None = None
        self._retired, self._heir = False, cast("socket.socket | None", None)
        self._connecting: set[asyncio.Task[Any]] = set()
        self._relays: set[Relay] = set()

    async def start_app(self) -> bool:
        """Run the app's start; answers whether it came up."""
        await self._uvicorn.lifespan.startup()
        return not self._uvicorn.lifespan.should_exit

    async def listen(self, listeners: list[tuple[socket.socket, ssl.SSLContext | None]]) -> None:
        """Accept connections."""
        await self._uvicorn.on_tick(0)
        self._ticking = asyncio.create_task(self._tick())
        for listener, tls in listeners:
            listener.setblocking(False)
            # Not asyncio's server: closing that one loses connections which it has accepted just now.
            asyncio.get_running_loop().add_reader(listener, self._accept, listener, tls)
            self._listening.append(listener)

    def adopt_from(self, handed_over: socket.socket) -> None:
        """Serve connections that other workers hand over."""
        handed_over.setblocking(False)
        self._listening.append(handed_over)
        asyncio.get_running_loop().add_reader(handed_over, self._adopt, handed_over)

    def stop_accepting(self, heir: socket.socket | None) -> None:
        """Take no new connection and no new request; what is under way goes on."""
        for sock in self._listening:
            asyncio.get_running_loop().remove_reader(sock)
        if heir is not None:
            heir.setblocking(False)
        self._retired, self._heir = True, heir
        for connection in list(self._uvicorn.server_state.connections):
            if isinstance(connection, Connection):
                connection.retire(heir)
            else:
                connection.shutdown()

    @property
    def is_busy(self) -> bool:
        """Whether a connection or a request is open, or a connection is relayed."""
        state = self._uvicorn.server_state
        return bool(state.connections or state.tasks or self._connecting or self._relays)

    async def until_idle(self, *, within: float) -> None:
        """Wait until nothing is open, for some seconds at most."""
        deadline = time.monotonic() + within
        await asyncio.sleep(TICK_SECONDS)  # a connection that was accepted just now shows up
        while self.is_busy and time.monotonic() < deadline:  # noqa: ASYNC110 - uvicorn tells by sets only
            await asyncio.sleep(TICK_SECONDS)

    async def stop_app(self) -> None:
        """Run the app's end."""
        if self._ticking is not None:
            self._ticking.cancel()
        # What is cut off now was asked to end; the log has nothing to add.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        await self._uvicorn.lifespan.shutdown()

    def _connection(self, *, origin: Origin | None, adopted: bool) -> Connection:
        server = self._uvicorn
        made = Connection(server.config, server.server_state, server.lifespan.state)
        made.retired, made.heir, made.relays = self._retired, self._heir, self._relays
        made.origin, made.adopted = origin, adopted
        return made

    def _accept(self, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            client, _ = listener.accept()
            self._serve(client, tls)

    def _adopt(self, handed_over: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                if (taken := take(handed_over)) is None:
                    return
                client, origin = taken
                self._serve(client, None, origin=origin, adopted=True)

    def _serve(
        self,
        client: socket.socket,
        tls: ssl.SSLContext | None,
        *,
        origin: Origin | None = None,
        adopted: bool = False,
    ) -> None:
        """Serve a client; one that gives up while it connects is no error."""

        def connected(task: asyncio.Task[Any]) -> None:
            self._connecting.discard(task)
            if not task.cancelled() and task.exception() is not None:
                client.close()

        client.setblocking(False)
        loop = asyncio.get_running_loop()
        connection = partial(self._connection, origin=origin, adopted=adopted)
        task = loop.create_task(loop.connect_accepted_socket(connection, client, ssl=tls))
        self._connecting.add(task)
        task.add_done_callback(connected)

    async def _tick(self) -> None:
        for count in range(10**9):
            await asyncio.sleep(0.1)
            await self._uvicorn.on_tick(count)
