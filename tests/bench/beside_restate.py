"""Steps on the embedded engine beside the same steps on Restate's single binary, each with its Python SDK.

    python tests/bench/beside_restate.py [--restate FOLDER] [--runs 7]

`chain` is a flowctl workflow of n steps, `loop` one whose one step is run n times (engine and storage in
files), `function` an inngest-py one of n steps that flowctl serves (engine in a file), `restate` a handler of
n `ctx.run`. Each is timed from the request that starts it to the moment when its caller knows its result, one
after the other in each round, on this machine. FOLDER has `node_modules/.bin/restate-server` (npm
`@restatedev/restate-server`) and `venv/bin/python` with `restate-sdk` and `hypercorn`, on which its
documentation runs it; without it the others are timed. Our apps run on uvicorn, as `flowctl start` has it.
All are driven through the engine's small transport: httpx would take more of the processors than what is
measured. Quote the ratios: Restate's time in ours.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import inngest
import orjson
import uvicorn

sys.path.insert(0, str(Path(__file__).parent))
from engine import free_port, process, seconds, serve_forever
from flowctl import App, SQLiteStorage, StepContext, Workflow, create_step, create_workflow
from flowctl.engine.transport import Transport
from flowctl_cli.commands.start import settle_memory

STEPS = (1, 10, 100)
CONCURRENT_RUNS, CONCURRENT_STEPS = 50, 10
Run = Callable[[int], Awaitable[None]]


async def plus_one(ctx: StepContext[Any]) -> Any:
    return {"value": ctx.input_data["value"] + 1, "n": ctx.input_data["n"]}


def flowctl_app(engine_url: str, folder: Path) -> App:
    client = inngest.Inngest(
        app_id="workflow-bench", is_production=False, api_base_url=engine_url, event_api_base_url=engine_url
    )
    workflows = [loop(), *map(chain, STEPS)]
    return App(workflows=workflows, inngest=client, storage=SQLiteStorage(folder / "runs.db"))


def loop() -> Workflow[Any, Any]:
    increment = create_step(id="increment", execute=plus_one)
    workflow = create_workflow(id="loop")
    return workflow.dountil(increment, lambda ctx: ctx.input_data["value"] >= ctx.input_data["n"]).commit()


def chain(steps: int) -> Workflow[Any, Any]:
    workflow = create_workflow(id=f"chain-{steps}")
    for number in range(steps):
        workflow = workflow.then(create_step(id=f"increment-{number}", execute=plus_one))
    return workflow.commit()


def serve_app(kind: str, engine_url: str, port: int, folder: Path) -> None:
    settle_memory()
    if kind == "function":
        serve_forever("function", engine_url, port)
    else:
        app = flowctl_app(engine_url, folder)
        uvicorn.run(app.asgi, host="127.0.0.1", port=port, log_level="error", access_log=False)


@contextlib.asynccontextmanager
async def served(kind: str, http: Transport, folder: Path, ready: str) -> AsyncIterator[tuple[str, str]]:
    """An engine with a file, and an app that is registered with it: their URLs."""
    engine_port, port = free_port(), free_port()
    engine_url, url = f"http://127.0.0.1:{engine_port}", f"http://127.0.0.1:{port}"
    engine = [
        "-m",
        "flowctl.engine",
        "--port",
        str(engine_port),
        "--db",
        str(folder / f"{kind}.db"),
        "--no-poll",
    ]
    app = [__file__, "--serve", str(port), "--app", kind, "--engine", engine_url, "--folder", str(folder)]
    async with process(*engine, ready=f"{engine_url}/health"), process(*app, ready=f"{url}{ready}"):
        await asked(http, "PUT", f"{url}/api/inngest")
        yield engine_url, url


@contextlib.asynccontextmanager
async def workflows(http: Transport, folder: Path) -> AsyncIterator[dict[str, Run]]:
    async with served("workflow", http, folder, "/health") as (_, url):

        async def run(workflow: str, n: int) -> None:
            body = {"inputData": {"value": 0, "n": n}}
            answer = await asked(http, "POST", f"{url}/api/workflows/{workflow}/start-async", body)
            assert answer["result"]["value"] == n, answer

        yield {"chain": lambda n: run(f"chain-{n}", n), "loop": lambda n: run("loop", n)}


@contextlib.asynccontextmanager
async def function(http: Transport, folder: Path) -> AsyncIterator[Run]:
    async with served("function", http, folder, "/ended/ready") as (engine_url, url):
        keys = iter(range(10**9))

        async def run(n: int) -> None:
            key = next(keys)
            event = {"name": "bench/steps", "data": {"n": n, "key": str(key)}}
            await asked(http, "POST", f"{engine_url}/e/k", event)
            await asked(http, "GET", f"{url}/ended/{key}")

        yield run


@contextlib.asynccontextmanager
async def restate(http: Transport, folder: Path, home: Path) -> AsyncIterator[Run]:
    ingress, admin, node, port = (free_port() for _ in range(4))
    bound = {
        "RESTATE_INGRESS__BIND_ADDRESS": ingress,
        "RESTATE_ADMIN__BIND_ADDRESS": admin,
        "RESTATE_BIND_ADDRESS": node,
    }
    env = os.environ | {name: f"127.0.0.1:{port}" for name, port in bound.items()}
    env |= {"RESTATE_DISABLE_TELEMETRY": "true", "RUST_LOG": "error"}
    server = [
        str(home / "node_modules/.bin/restate-server"),
        "--base-dir",
        str(folder / "restate"),
        "--node-name",
        "b",
    ]
    service = [str(home / "venv/bin/python"), str(Path(__file__).with_name("restate_service.py")), str(port)]
    async with child(*server, env=env), child(*service, env=dict(os.environ)):
        await accepted(http, f"http://127.0.0.1:{admin}/deployments", {"uri": f"http://127.0.0.1:{port}"})

        async def run(n: int) -> None:
            assert await asked(http, "POST", f"http://127.0.0.1:{ingress}/bench/steps", n) == n

        await accepted(http, f"http://127.0.0.1:{ingress}/bench/steps", 1)
        yield run


@contextlib.asynccontextmanager
async def child(*command: str, env: dict[str, str]) -> AsyncIterator[None]:
    quiet = asyncio.subprocess.DEVNULL
    started = await asyncio.create_subprocess_exec(
        *command, env=env, stdout=quiet, stderr=quiet, start_new_session=True
    )
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(started.pid, 9)  # npm's launcher, the binary below it
        await started.wait()


async def accepted(http: Transport, url: str, body: Any) -> None:
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(OSError):
                await asked(http, "POST", url, body)
                return
            await asyncio.sleep(0.2)


async def asked(http: Transport, method: str, url: str, body: Any = None) -> Any:
    """The JSON of an answer, None for an empty one; raises OSError for a refusal."""
    headers = {"content-type": "application/json"}
    answer = await http.request(
        method, url, headers=headers, body=b"" if body is None else orjson.dumps(body)
    )
    if answer.status >= 300:
        raise OSError(f"{url}: {answer.status} {answer.body.decode()}")
    return orjson.loads(answer.body) if answer.body else None


async def compare(sides: dict[str, Run], runs: int) -> None:
    for run in sides.values():
        await run(1)
        await run(100)
    for n in STEPS:
        await row(f"{n} steps", n, sides, lambda run, n=n: run(n), runs)

    async def side_by_side(run: Run) -> None:
        await asyncio.gather(*(run(CONCURRENT_STEPS) for _ in range(CONCURRENT_RUNS)))

    total = CONCURRENT_RUNS * CONCURRENT_STEPS
    await row(f"{CONCURRENT_RUNS} runs of {CONCURRENT_STEPS}", total, sides, side_by_side, max(3, runs // 2))


async def row(
    name: str, steps: int, sides: dict[str, Run], once: Callable[[Run], Awaitable[None]], runs: int
) -> None:
    times: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(runs):
        for side, run in sides.items():
            times[side].append(await seconds(once(run)))
    per_step = {side: statistics.median(taken) / steps * 1000 for side, taken in times.items()}
    cells = [f"{side} {cost:6.2f} ms/step ({1000 / cost:5.0f}/s)" for side, cost in per_step.items()]
    if "restate" in per_step:
        ours = [side for side in per_step if side != "restate"]
        cells += [f"restate / {side} {per_step['restate'] / per_step[side]:4.2f}" for side in ours]
    print(f"{name:14} " + "   ".join(cells), flush=True)


async def main(runs: int, home: Path | None) -> None:
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        http = Transport()
        stack.push_async_callback(http.close)
        sides = await stack.enter_async_context(workflows(http, folder))
        sides["function"] = await stack.enter_async_context(function(http, folder))
        if home is not None:
            sides["restate"] = await stack.enter_async_context(restate(http, folder, home))
        await compare(sides, runs)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--restate", type=Path, metavar="FOLDER")
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    for name in ("--app", "--engine", "--folder"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve_app(given.app, given.engine, given.serve, Path(given.folder))
    else:
        asyncio.run(main(given.runs, given.restate))
