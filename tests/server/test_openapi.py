"""The document that describes the API, and what a fuzzer finds between it and the server."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from flowctl import App, MemoryStorage, create_step, create_workflow
from flowctl.server import api, openapi

LONG = "FLOWCTL_LONG_FUZZ" in os.environ
GOLDEN = Path(__file__).parent / "openapi.json"
KNOWN = """
[checks.positive_data_acceptance]
# 400: an integer of more than 64 bits in data of users', which no schema can say
expected-statuses = ["2xx", 204, 400, 401, 403, 404, 409]

[parameters]
"path.workflowId" = "echo"
"query.runId" = "done"
"path.runId" = "other"
"""


async def echo(ctx: Any) -> Any:
    return ctx.input_data


def described() -> dict[str, Any]:
    document = openapi.document(api.operations())
    document["info"]["version"] = "0"
    return document


def test_the_document_is_the_one_that_was_reviewed() -> None:
    """Write it anew with `python -m tests.server.test_openapi` and read the difference."""
    assert described() == orjson.loads(GOLDEN.read_bytes())


def test_every_model_that_is_referred_to_is_described() -> None:
    document = described()
    text = orjson.dumps(document).decode()
    referred = {part.partition('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert referred == set(document["components"]["schemas"]) - {"RunEvent"}


@pytest.mark.timeout(660 if LONG else 120)
async def test_a_fuzzer_finds_no_mistake_and_no_answer_that_is_not_described(serve_app, tmp_path) -> None:
    step = create_step(id="echo", execute=echo)
    workflow = create_workflow(id="echo").then(step).commit()
    url = await serve_app(App(workflows=[workflow], storage=MemoryStorage()))
    async with httpx.AsyncClient(base_url=f"{url}/api/workflows/echo") as http:
        for run_id in ("done", "other"):
            await http.post(f"/start-async?runId={run_id}", json={})
    (tmp_path / "schemathesis.toml").write_text(KNOWN)
    fuzzer = await asyncio.create_subprocess_exec(
        Path(sys.executable).parent / "schemathesis",
        "--config-file", "schemathesis.toml", "run", f"{url}/api/openapi.json",
        *("--phases", "coverage,fuzzing" if LONG else "fuzzing", "--max-examples", "50" if LONG else "1"),
        *("--seed", "1", "--request-timeout", "20"),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await asyncio.wait_for(fuzzer.communicate(), 600 if LONG else 100)
    if LONG:
        print(output.decode())
    assert fuzzer.returncode == 0, output.decode()


if __name__ == "__main__":
    GOLDEN.write_bytes(orjson.dumps(described(), option=orjson.OPT_INDENT_2) + b"\n")
