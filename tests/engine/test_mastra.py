"""Mastra workflows (npm @mastra/inngest) on the engine."""

from __future__ import annotations

import httpx
import pytest
import pytest_asyncio

from flowctl.engine import Engine, EngineConfig
from tests.node_program import node_program

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mastra():
    async with (
        Engine(EngineConfig(port=0)) as engine,
        node_program("mastra_app.mjs", {"ENGINE": engine.url}) as program,
        httpx.AsyncClient(timeout=60, base_url=program.url) as http,
    ):
        synced = await http.put("/api/inngest")
        assert synced.status_code == 200, synced.text
        yield http


async def test_a_mastra_workflow_loops_suspends_is_watched_and_resumes(mastra):
    started = (await mastra.post("/start/grow/run-1", json={"value": 0})).json()
    assert started["status"] == "suspended"
    assert started["payload"]["question"] == "more than 3?"
    assert {"workflow-step-start", "workflow-step-result", "workflow-step-suspended"} <= set(started["seen"])
    resumed = (await mastra.post("/resume/grow/run-1", json={"plus": 4})).json()
    assert resumed == {"status": "success", "result": {"value": 7}}


async def test_a_mastra_workflow_that_fails_tells_why(mastra):
    failed = (await mastra.post("/start/broken/run-2", json={})).json()
    assert failed["status"] == "failed"
    assert "no luck" in failed["error"]
