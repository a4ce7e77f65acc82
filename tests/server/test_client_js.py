"""Mastra's client for JavaScript, as its package comes, against a served app."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

from tests.node_program import FOLDER
from tests.server.conftest import make_app

RAN = ["workflow-step-start", "workflow-step-result", "workflow-finish"]


async def driven(url: str) -> dict[str, Any]:
    program = await asyncio.create_subprocess_exec(
        "node",
        "client.mjs",
        cwd=FOLDER,
        env=os.environ | {"SERVER": url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(program.communicate(), 100)
    assert program.returncode == 0, errors.decode()
    return json.loads(output)


async def test_the_javascript_client_works_unchanged(serve_app) -> None:
    seen = await driven(await serve_app(make_app()))
    assert seen == {
        "workflows": ["counter", "talk", "slow"],
        "counts": {"running": 0, "suspended": 0},
        "steps": ["ask"],
        "schema": "integer",
        "result": {"value": 10},
        "message": "Workflow run started",
        "observed": ["workflow-start", *RAN],
        "skipped": ["workflow-finish"],
        "suspended": [
            "workflow-start",
            "workflow-step-start",
            "workflow-step-suspended",
            "workflow-finish",
        ],
        "waiting": {"ask": "how much?"},
        "resumed": ["workflow-start", *RAN],
        "stored": {"value": 5},
        "asked": [["ask"]],
        "answered": {"value": 3},
        "travelled": {"value": 8},
        "travel": ["workflow-start", *RAN],
        "noWait": True,
        "followed": "workflow-finish",
        "context": "success",
        "canceled": "canceled",
        "restart": 409,
        "invalid": 409,
        "page": 1,
        "deleted": 404,
    }
