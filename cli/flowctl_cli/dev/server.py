"""The HTTP server of a worker: uvicorn, begun and ended in steps, with connections that change hands.

A client's idle connection is passed on to the next worker instead of being closed: a request that is on its
way meanwhile would be lost with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

TICK_SECONDS = 0.05


class Connection(HttpToolsProtocol):
    """A client's connection; once retired, it changes hands as soon as no request is under way on it."""

    unread = 0
    retired = False
    heir: socket.socket | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """It is accepted, perhaps just when the server retires."""
        super().connection_made(transport)
        if self.retired:
            self.loop.call_soon(self._leave)

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
        """Pass a plain connection on; what the client sends meanwhile waits in it for the heir."""
        if self.scheme != "http":
            return False
        self.transport.pause_reading()
        client: Any = self.transport.get_extra_info("socket")
        try:
            socket.send_fds(heir, [b"c"], [client.fileno()])
        except OSError:
            return False
        self.transport.close()
        return True


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
        """Whether a connection or a request is open."""
        state = self._uvicorn.server_state
        return bool(state.connections or state.tasks or self._connecting)

    async def stop_app(self) -> None:
        """Run the app's end."""
        if self._ticking is not None:
            self._ticking.cancel()
        # What is cut off now was asked to end; the log has nothing to add.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        await self._uvicorn.lifespan.shutdown()

    def _connection(self) -> Connection:
        server = self._uvicorn
        made = Connection(server.config, server.server_state, server.lifespan.state)
        made.retired, made.heir = self._retired, self._heir
        return made

    def _accept(self, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            client, _ = listener.accept()
            self._serve(client, tls)

    def _adopt(self, handed_over: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                _, fds, _, _ = socket.recv_fds(handed_over, 1, 1)
                if not fds:
                    return
                self._serve(socket.socket(fileno=fds[0]), None)

    def _serve(self, client: socket.socket, tls: ssl.SSLContext | None) -> None:
        """Serve a client; one that gives up while it connects is no error."""

        def connected(task: asyncio.Task[Any]) -> None:
            self._connecting.discard(task)
            if not task.cancelled() and task.exception() is not None:
                client.close()

        client.setblocking(False)
        loop = asyncio.get_running_loop()
        task = loop.create_task(loop.connect_accepted_socket(self._connection, client, ssl=tls))
        self._connecting.add(task)
        task.add_done_callback(connected)

    async def _tick(self) -> None:
        for count in range(10**9):
            await asyncio.sleep(0.1)
            await self._uvicorn.on_tick(count)
