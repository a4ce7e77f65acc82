"""Clients of a running server: the verbs and types of `flowctl.Run`, over HTTP.

    async with Client("http://127.0.0.1:4111") as client:
        result = await client.start("increment-workflow", {"value": 5})

`SyncClient` has the same methods for code without an event loop.
"""

from __future__ import annotations

from flowctl.client.client import Client, FunctionInfo, ResumeOptions, TravelOptions, WorkflowInfo
from flowctl.client.connection import ApiError, ServerUnreachableError
from flowctl.client.sync import SyncClient

__all__ = [
    "ApiError",
    "Client",
    "FunctionInfo",
    "ResumeOptions",
    "ServerUnreachableError",
    "SyncClient",
    "TravelOptions",
    "WorkflowInfo",
]
