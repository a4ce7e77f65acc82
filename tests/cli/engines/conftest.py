"""A real Docker daemon (where there is none, tests skip with the reason) and a stand-in for Inngest's image.

The image is a static busybox and a script that answers as the dev server does: no registry is needed.
It finds the address of the app in /etc/hosts by hand: a static program cannot ask the C library everywhere.
Its requests leave their side of the connection open for a second: uvicorn drops the answer to a client that
has closed its own side already, which busybox's nc does as soon as it has sent.
"""

from __future__ import annotations

import io
import shutil
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from flowctl_cli.engines.choice import DockerHost
from flowctl_cli.engines.detect import find_docker

APPLETS = ("sh", "nc", "cat", "mv", "sleep", "head", "tail", "tr", "echo", "printf")
INNGEST = """#!/bin/sh
# inngest dev -u URL …
echo "stand-in: $*"
[ -n "$STAND_IN_FAILS" ] && exit 3
host=${3#http://}; path=/${host#*/}; host=${host%%/*}
while read -r ip name; do [ "$name" = "${host%:*}" ] && address=$ip; done < /etc/hosts
request="GET $path HTTP/1.0\\r\\nhost: $host\\r\\n\\r\\n"
(while :; do
    { printf "$request"; sleep 1; } | nc -w 3 "$address" "${host##*:}" 2>/error.txt | tail -n 1 > /app.new
    [ -s /app.new ] && mv /app.new /app.json
    sleep 0.2
done) &
exec nc -ll -p 8288 -e /bin/answer
"""
ANSWER = """#!/bin/sh
read -r method path rest
length=0
while read -r line; do
    line=$(printf %s "$line" | tr -d '\\r')
    [ -z "$line" ] && break
    case "$line" in [Cc]ontent-[Ll]ength:*) length=${line#*: } ;; esac
done
[ "$length" -gt 0 ] && head -c "$length" > "/registered.$$" && mv "/registered.$$" /registered.json
case "$path" in
    /health) body='{"status":200}' ;;
    /dev) body="{\\"app\\":$(cat /app.json),\\"registered\\":$(cat /registered.json)}" ;;
    *) body='{"ok":true,"modified":true}' ;;
esac
printf 'HTTP/1.1 200 OK\\r\\ncontent-type: application/json\\r\\nconnection: close\\r\\n\\r\\n%s' "$body"
"""


@pytest.fixture(scope="session")
def daemon() -> DockerHost:
    found, problem = find_docker()
    if found is None:
        pytest.skip(problem)
    if not _busybox():
        pytest.skip("There is no static busybox to make an image of: apt-get install busybox-static")
    return found


@pytest.fixture(scope="session")
def client(daemon: DockerHost) -> Iterator[docker.DockerClient]:
    made = docker.DockerClient(base_url=daemon.url)
    yield made
    made.close()


@pytest.fixture(scope="session")
def image(client: docker.DockerClient) -> Iterator[str]:
    """The stand-in, under a name of this session."""
    name = f"flowctl-test-{uuid.uuid4().hex[:8]}"
    client.api.import_image_from_data(_files(INNGEST), repository=name, tag="latest")
    yield f"{name}:latest"
    client.images.remove(f"{name}:latest", force=True)


@pytest.fixture
def broken_image(client: docker.DockerClient) -> Iterator[str]:
    """One whose `inngest` ends at once."""
    name = f"flowctl-test-{uuid.uuid4().hex[:8]}"
    client.api.import_image_from_data(_files("#!/bin/sh\necho out of luck; exit 3\n"), repository=name)
    yield f"{name}:latest"
    client.images.remove(f"{name}:latest", force=True)


def _busybox() -> Path | None:
    found = shutil.which("busybox")
    return Path(found).resolve() if found else None


def _files(inngest: str) -> bytes:
    """The image's file system."""
    buffer = io.BytesIO()
    busybox = _busybox()
    assert busybox is not None
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(busybox, "bin/busybox")
        for applet in APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        files: dict[str, Any] = {
            "bin/inngest": inngest,
            "bin/answer": ANSWER,
            "app.json": "null",
            "registered.json": "null",
        }
        for path, text in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(text.encode()), 0o755
            tar.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()
