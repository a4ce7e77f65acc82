"""How the server is set up; cheap to import."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.middleware import Middleware
    from starlette.routing import BaseRoute


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Where `app.asgi` is served and what is mounted beside the API: your Starlette routes and middleware."""

    host: str = "127.0.0.1"
    port: int = 4111
    routes: Sequence[BaseRoute] = ()
    middleware: Sequence[Middleware] = ()
