"""The worker's end of the line to the supervisor: JSON lines both ways. When it closes, the worker ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Channel:
    """One worker's line."""

    sock: socket.socket

    def send(self, **message: Any) -> None:
        """Tell the supervisor; when it is gone there is nobody to tell."""
        with contextlib.suppress(OSError):
            self.sock.setblocking(True)
            self.sock.sendall(json.dumps(message).encode() + b"\n")

    async def commands(self) -> AsyncIterator[dict[str, Any]]:
        """What the supervisor asks for, until it is gone."""
        reader, writer = await asyncio.open_connection(sock=self.sock.dup())
        try:
            with contextlib.suppress(OSError):
                while line := await reader.readline():
                    yield json.loads(line)
        finally:
            writer.close()

    async def until_told_to_end(self) -> None:
        """Return when the supervisor says to end, or is gone."""
        async for command in self.commands():
            if command["do"] == "finish":
                self.send(released=True)
                return


@dataclass(frozen=True, slots=True)
class Job:
    """What a worker is for: its role's settings, its line, and the sockets it was given."""

    spec: Mapping[str, Any]
    channel: Channel
    sockets: list[socket.socket]
