"""What the engine's HTTP interface reads and writes: JSON bodies in, the Inngest server's answers out.

Called by every room with routes. Errors are raised as `RequestError` and answered in one place (`api`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Any, TypeVar

import orjson
from starlette.requests import Request
from starlette.responses import Response

from flowctl.engine.backlog import RETRY_AFTER_SECONDS, OverloadedError
from flowctl.engine.budget import ByteBudget
from flowctl.engine.protocol import iso, parsed_json

T = TypeVar("T")
BODY_LIMIT = 16 * 2**20
BODIES_BYTES = 64 * 2**20
"""Of the larger bodies that are read at once, together."""
ROOM_SECONDS, READ_SECONDS = 10, 120
"""How long a body waits for room beside the others, and how long its sender may take for it."""


class RequestError(ValueError):
    """A caller's mistake, answered with its status."""

    http_status = 400


class NotFoundError(RequestError):
    """What was asked for is not there."""

    http_status = 404


class BodyTooLargeError(RequestError):
    """The body exceeds what is read of it (bytes)."""

    http_status = 413

    def __init__(self, limit: int) -> None:
        super().__init__(f"The body is larger than {limit} bytes.")


class TooSlowError(RequestError):
    """The body did not come in time."""

    http_status = 408

    def __init__(self) -> None:
        super().__init__(f"The body did not come within {READ_SECONDS} seconds.")


def json_answer(body: Any, status: int = 200) -> Response:
    """JSON as it is."""
    return Response(orjson.dumps(body), status, media_type="application/json")


def refused(message: str, code: int, status: int | None = None) -> Response:
    """The server's form of an error; some routes carry the code in the body alone, under status 200."""
    return json_answer({"error": message, "data": None, "status": code}, code if status is None else status)


def overloaded(message: str) -> Response:
    """The answer that has senders come again."""
    answer = refused(message, 503)
    answer.headers["retry-after"] = str(RETRY_AFTER_SECONDS)
    return answer


def fetched(data: Any) -> Response:
    """Data of the REST API, never cached: what is read is what is."""
    return json_answer({"data": data, "metadata": {"fetched_at": iso(time.time_ns() // 1_000_000)}})


async def read_body(request: Request, *, limit: int = BODY_LIMIT) -> bytes:
    """A whole body; raises BodyTooLargeError, TooSlowError, OverloadedError when others leave no room.

    The room is given back here: up to its next `await` a caller is the only one that has a body in hand.
    """
    announced = int(request.headers.get("content-length", limit))
    if announced > limit:
        raise BodyTooLargeError(limit)
    bodies: ByteBudget = request.app.state.bodies
    no_room = OverloadedError("Too much is sent at once: try again later.")
    with bodies.lease() as lease:
        await _within(ROOM_SECONDS, lease.hold(announced), no_room)
        return await _within(READ_SECONDS, _read(request, limit), TooSlowError())


async def _within(seconds: float, work: Awaitable[T], otherwise: Exception) -> T:
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError as err:
        raise otherwise from err


async def _read(request: Request, limit: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise BodyTooLargeError(limit)
    return bytes(body)


async def read_json(request: Request, *, limit: int = BODY_LIMIT) -> Any:
    """A JSON body; raises RequestError."""
    body = await read_body(request, limit=limit)
    try:
        return parsed_json(body)
    except ValueError as err:
        raise RequestError(f"invalid JSON: {err}") from err


async def read_object(request: Request, *required: str, limit: int = BODY_LIMIT) -> dict[str, Any]:
    """A JSON object with these keys; raises RequestError."""
    sent = await read_json(request, limit=limit)
    if not isinstance(sent, dict):
        raise RequestError("The body must be an object.")
    missing = [name for name in required if not sent.get(name)]
    if missing:
        raise RequestError(f"The body lacks {', '.join(missing)}.")
    return sent
