"""A running engine with an app of real SDK functions, all in the test's loop."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import httpx
import inngest
import pytest
from engine_world import World

from flowctl.engine import Engine, EngineConfig


@pytest.fixture
async def world() -> AsyncIterator[World]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    async with httpx.AsyncClient(timeout=10) as http, Engine(EngineConfig(port=0)) as engine:
        client = inngest.Inngest(
            app_id="t", is_production=False, api_base_url=engine.url, event_api_base_url=engine.url
        )
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/api/inngest"
        made = World(engine, http, client, url, listener=listener)
        async with made.served:
            yield made
        await client._http_client._http_client.aclose()
        listener.close()
