"""Looks for a Docker daemon (one call over its socket, without the SDK) and for an `inngest` binary."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flowctl_cli.engines.choice import DockerHost, Machine

ANSWER_SECONDS = 2.0
NO_DAEMON = "No Docker daemon answers ({tried}): start Docker."
NO_PERMISSION = (
    "The Docker daemon at {socket} may not be used by this user: add it to the group docker "
    "(sudo usermod -aG docker $USER, then log in again)."
)


def look_around() -> Machine:
    """What this machine has."""
    docker, problem = find_docker()
    return Machine(docker, problem, shutil.which("inngest"))


def find_docker() -> tuple[DockerHost | None, str]:
    """The daemon that `docker` would use, or why there is none."""
    tried: list[str] = []
    for url in _daemons():
        if not url.startswith("unix://"):
            return _over_network(url)
        path = url.removeprefix("unix://")
        tried.append(path)
        if not Path(path).exists():
            continue
        try:
            return DockerHost(url, _bridge(path)), ""
        except PermissionError:
            return None, NO_PERMISSION.format(socket=path)
        except OSError:
            continue
    return None, NO_DAEMON.format(tried=", ".join(tried))


def _daemons() -> Iterator[str]:
    """Where a daemon may listen: what is configured, else the usual places."""
    configured = os.environ.get("DOCKER_HOST") or _of_context()
    if configured:
        yield configured
        return
    home, runtime = Path.home(), os.environ.get("XDG_RUNTIME_DIR")
    yield "unix:///var/run/docker.sock"
    yield f"unix://{home}/.docker/run/docker.sock"
    if runtime:
        yield f"unix://{runtime}/docker.sock"


def _of_context() -> str | None:
    """The daemon of the current Docker context."""
    folder = Path(os.environ.get("DOCKER_CONFIG", Path.home() / ".docker"))
    config = _json(folder / "config.json")
    name = os.environ.get("DOCKER_CONTEXT") or config.get("currentContext", "default")
    for file in (folder / "contexts" / "meta").glob("*/meta.json") if name != "default" else ():
        meta = _json(file)
        if meta.get("Name") == name:
            return meta.get("Endpoints", {}).get("docker", {}).get("Host")
    return None


def _json(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return {}


def _over_network(url: str) -> tuple[DockerHost | None, str]:
    host, _, port = url.rpartition("://")[2].rstrip("/").partition(":")
    try:
        socket.create_connection((host, int(port or 2375)), ANSWER_SECONDS).close()
    except (OSError, ValueError) as err:
        return None, f"The Docker daemon at {url} does not answer ({err})."
    return DockerHost(url), ""


def _bridge(path: str) -> str | None:
    """The host's address on the default bridge, where containers run on this very kernel.

    Raises OSError when the daemon does not answer.
    """
    status, network = _get(path, "/networks/bridge")
    if status != 200 or sys.platform != "linux":
        return None
    configs = network.get("IPAM", {}).get("Config") or [{}]
    return configs[0].get("Gateway")


def _get(path: str, resource: str) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("docker", timeout=ANSWER_SECONDS)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(ANSWER_SECONDS)
    try:
        connection.sock.connect(path)
        connection.request("GET", resource)
        answer = connection.getresponse()
        body = json.loads(answer.read() or b"{}")
    except (http.client.HTTPException, ValueError) as err:
        raise OSError(str(err)) from err
    finally:
        connection.close()
    return answer.status, body if isinstance(body, dict) else {}
