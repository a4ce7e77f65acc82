"""A worker that speaks the protocol by hand and writes down what it does, a line a step.

`soak_worker.py FD LOG PAUSE_MS` serves on an inherited socket. The event's data is `{"i": run, "n": steps}`,
and `pause`, the milliseconds that a step of that run takes.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import sys
import time
from pathlib import Path
from typing import Any

import orjson
import uvicorn


class Worker:
    def __init__(self, log: Path, pause_ms: float) -> None:
        self.log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.pause_ms = pause_ms

    def note(self, *words: object) -> None:
        os.write(self.log, f"{' '.join(map(str, (time.time(), *words)))}\n".encode())

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        asked = orjson.loads(await body_of(receive))
        status, answer = await self.answer(asked["event"]["data"], list(asked["steps"]))
        body = orjson.dumps(answer)
        headers = [(b"content-length", str(len(body)).encode()), (b"x-inngest-sdk", b"soak")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def answer(self, data: dict[str, int], known: list[str]) -> tuple[int, Any]:
        self.note("asked", data["i"], len(known))
        if len(known) == data["n"]:
            return 200, data["i"]
        if pause_ms := data.get("pause", self.pause_ms):
            await asyncio.sleep(pause_ms / 1000 * random.random() * 2)
        self.note("ran", data["i"], len(known))
        return 206, [{"op": "StepRun", "id": f"s{len(known)}", "data": len(known)}]


async def body_of(receive: Any) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return bytes(body)


if __name__ == "__main__":
    fd, log, pause = sys.argv[1:]
    worker = Worker(Path(log), float(pause))
    config = uvicorn.Config(worker, log_level="error", access_log=False, lifespan="off", interface="asgi3")
    server = uvicorn.Server(config)
    worker.note("up", 0, 0)
    server.run([socket.socket(fileno=int(fd))])
