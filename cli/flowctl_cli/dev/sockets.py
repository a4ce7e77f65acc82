"""The sockets that a dev server owns while workers come and go: made here, accepted on in workers."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from dataclasses import dataclass

from flowctl.errors import EngineError
from flowctl_cli.dev.holder import holder_of

ANY = {"0.0.0.0", "::"}  # noqa: S104 - compared, not bound
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Sockets:
    """Where the app is served.

    `public` is what people open; `inner` speaks plain HTTP on loopback for the engine and for commands (the
    public one where that does so); `bridge` is for containers. Idle connections of a worker that is replaced
    wait in `handed_over` for the next one.
    """

    public: socket.socket
    inner: socket.socket
    bridge: socket.socket | None
    handed_over: socket.socket
    hand_over_to: socket.socket
    is_tls: bool

    @classmethod
    def open(cls, host: str, port: int, *, tls: bool = False, bridge: str | None = None) -> Sockets:
        """Bind them; raises EngineError when a port is taken."""
        public = listen(host, port, "--port")
        ours, theirs = socket.socketpair()
        return cls(
            public=public,
            inner=listen(LOOPBACK, 0, "--port") if tls else public,
            bridge=_listen_on_bridge(bridge, public) if bridge is not None else None,
            handed_over=theirs,
            hand_over_to=ours,
            is_tls=tls,
        )

    @property
    def url(self) -> str:
        """Where people reach the app."""
        return url_of(self.public, tls=self.is_tls)

    @property
    def inner_url(self) -> str:
        """Where programs on this machine reach it."""
        return url_of(self.inner)

    @property
    def port_for_containers(self) -> int:
        """The port at which containers reach it."""
        return int((self.bridge or self.inner).getsockname()[1])

    def for_worker(self) -> list[socket.socket]:
        """What a worker is given: the public one first among those it listens on."""
        listeners = [
            self.public,
            *([self.inner] if self.is_tls else []),
            *([self.bridge] if self.bridge else []),
        ]
        return [self.handed_over, self.hand_over_to, *listeners]

    def close(self) -> None:
        """Give them back."""
        for sock in {*self.for_worker()}:
            sock.close()


def listen(host: str, port: int, option: str) -> socket.socket:
    """A bound socket; raises EngineError (exit code 4) when another program has the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except (OSError, OverflowError) as err:
        listener.close()
        raise EngineError(
            f"Cannot listen on {host}:{port}: {_reason(err, port)}. "
            f"Stop the other program, or choose another port with {option}."
        ) from err
    return listener


def _reason(err: OSError | OverflowError, port: int) -> str:
    number = err.errno if isinstance(err, OSError) else None
    holder = holder_of(port) if number == errno.EADDRINUSE else ""
    return (os.strerror(number) if number else str(err)) + (f" by {holder}" if holder else "")


def url_of(listener: socket.socket, *, tls: bool = False) -> str:
    """Where a listening socket is reached on this machine."""
    address = listener.getsockname()
    host, port = str(address[0]), int(address[1])
    scheme = "https" if tls else "http"
    if host in ANY:
        host = LOOPBACK
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _listen_on_bridge(address: str, public: socket.socket) -> socket.socket | None:
    """Docker's bridge is an address of this machine on Linux; elsewhere containers reach loopback."""
    host, port = public.getsockname()[:2]
    with contextlib.suppress(EngineError):
        return listen(address, 0 if host in ANY else int(port), "--port")
    return None
