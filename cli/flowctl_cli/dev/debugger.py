"""`flowctl dev --debug`: a debugger attaches to the worker, and after a reload to the next one."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import socket
from typing import Any

from flowctl.errors import ConfigurationError

RETRY_SECONDS = 0.1
RETRIES = 100


def check() -> None:
    """Raise ConfigurationError unless debugpy is installed."""
    if importlib.util.find_spec("debugpy") is None:
        raise ConfigurationError("--debug needs the package debugpy: pip install 'flowctl-workflows[dev]'.")


def listen(port: int) -> bool:
    """Let a debugger attach; False while the worker before still has the port."""
    import debugpy  # noqa: PLC0415 - of the extra `dev`

    if not _is_free(port):
        return False
    debugpy.configure(subProcess=False)
    debugpy.listen(("127.0.0.1", port))
    return True


async def listen_soon(port: int) -> None:
    """As soon as the worker before has given the port back."""
    for _ in range(RETRIES):
        if listen(port):
            return
        await asyncio.sleep(RETRY_SECONDS)


def give_back() -> None:
    """Let the next worker have the port. debugpy has no public way to end its adapter."""
    api: Any = importlib.import_module("debugpy.server.api")
    adapter = getattr(api, "_adapter_process", None)
    if adapter is not None:
        adapter.kill()
        adapter.wait()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
