"""A Docker daemon that only pulls, and fails at the end: what a pull shows can be seen without a registry."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

PULL = [
    {"status": "Pulling from some/image", "id": "latest"},
    {"status": "Downloading", "id": "a1b2c3", "progressDetail": {"current": 512, "total": 2048}},
    {"status": "Downloading", "id": "a1b2c3", "progressDetail": {"current": 2048, "total": 2048}},
    {"status": "Pull complete", "id": "a1b2c3"},
    {"error": "no space left on device"},
]


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: object) -> None:
        del format, args

    def do_GET(self) -> None:
        found = "/images/" not in self.path
        self._answer(200 if found else 404, [{"ApiVersion": "1.41", "message": "No such image"}])

    def do_POST(self) -> None:
        self._answer(200, PULL)

    def _answer(self, status: int, lines: list[object]) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for chunk in [json.dumps(line).encode() + b"\n" for line in lines] + [b""]:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))


@contextmanager
def pulling_daemon(socket: Path) -> Iterator[str]:
    """Its address, as in DOCKER_HOST."""
    with socketserver.ThreadingUnixStreamServer(str(socket), Answers) as server:
        server.daemon_threads = True
        server.block_on_close = False
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        serving.start()
        yield f"unix://{socket}"
        server.shutdown()
        serving.join()
