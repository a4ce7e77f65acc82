"""A project of its own, whose tests use all of `flowctl.testing`, under each plugin for async tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SHOP = """
from pydantic import BaseModel

from flowctl import App, SQLiteStorage, StepContext, create_workflow, step


class Order(BaseModel):
    item: str
    paid: bool = False


@step(resume_schema=bool)
async def pay(data: Order, ctx: StepContext[Order, bool]) -> Order:
    if ctx.resume_data is None:
        await ctx.suspend({"price": 10})
    return Order(item=data.item, paid=ctx.resume_data)


@step(retries=2)
async def ship(data: Order, ctx: StepContext) -> str:
    if ctx.retry_count < ctx.request_context.get("lost", 0):
        raise ConnectionError("the van broke down")
    ctx.set_state({"shipped": [*ctx.state.get("shipped", []), data.item]})
    return f"{data.item} for {ctx.resource_id}"


delivery = create_workflow(id="delivery", input_schema=Order, retry_config={"attempts": 0, "delay": 60_000})
delivery.sleep(86_400_000).then(ship).commit()
order = create_workflow(id="order", input_schema=Order, output_schema=str).then(pay).then(delivery).commit()
app = App(workflows=[order], storage=SQLiteStorage("never-opened.db"))
"""

TESTS = """
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flowctl import NotSuspendedError, SQLiteStorage, ValidationError
from flowctl.testing import TestApp, TestClock, run_workflow
from shop import Order, app, delivery, order

DAY = timedelta(days=1)


async def test_run_workflow_takes_what_start_takes():
    result = await run_workflow(
        delivery, Order(item="tea"), initial_state={"shipped": ["jam"]}, request_context={"lost": 2},
        run_id="r1", resource_id="ada",
    )
    assert (result.status, result.raw_result, result.run_id) == ("success", "tea for ada", "r1")
    assert result.state == {"shipped": ["jam", "tea"]}


async def test_run_workflow_stops_where_the_run_does():
    assert (await run_workflow(order, {"item": "tea"})).suspend_payload == {"pay": {"price": 10}}
    assert (await run_workflow(delivery, {"item": "tea"}, per_step=True)).status == "paused"
    failed = await run_workflow(delivery, {"item": "tea"}, request_context={"lost": 3})
    assert (failed.status, failed.error.name) == ("failed", "ConnectionError")
    with pytest.raises(ValidationError, match="item"):
        await run_workflow(order, {})


async def test_a_clock_tells_how_long_it_took_and_when_it_is():
    clock = TestClock(datetime(2030, 1, 1, tzinfo=UTC))
    await run_workflow(delivery, {"item": "tea"}, request_context={"lost": 1}, clock=clock)
    assert clock.elapsed == DAY + timedelta(minutes=1)
    assert clock.now() == int((datetime(2030, 1, 2, 0, 1, tzinfo=UTC)).timestamp() * 1000)


async def test_a_naive_start_of_a_clock_is_utc():
    assert TestClock(datetime(2030, 1, 1)).now() == TestClock(datetime(2030, 1, 1, tzinfo=UTC)).now()


@pytest.mark.parametrize("engine", ["local", "inngest"])
async def test_an_app_is_borrowed_for_a_test(engine):
    async with TestApp(app, engine=engine) as test:
        run = await test.get_workflow("order").create_run(resource_id="ada")
        assert (await run.start({"item": "tea"})).status == "suspended"
        with pytest.raises(NotSuspendedError):
            await run.resume("delivery.ship", True)
        result = await run.resume("pay", True)
        assert (result.result, test.clock.elapsed) == ("tea for ada", DAY)
        assert (await order.list_workflow_runs()).total == 1
    assert order.app is app
    assert not Path("never-opened.db").exists()


async def test_a_second_app_finds_what_the_first_left_in_a_file(tmp_path):
    async with TestApp(workflows=[order], storage=SQLiteStorage(tmp_path / "runs.db")):
        await (await order.create_run(run_id="r")).start({"item": "tea"})
    async with TestApp(workflows=[order], storage=SQLiteStorage(tmp_path / "runs.db")):
        assert (await (await order.create_run(run_id="r")).resume("pay", False)).status == "success"


async def test_fixtures_share_one_clock(flowctl_run, flowctl_clock):
    assert (await flowctl_run(delivery, {"item": "tea"})).status == "success"
    assert flowctl_clock.elapsed == DAY
    await flowctl_run(delivery, {"item": "jam"}, request_context={"lost": 1})
    assert flowctl_clock.elapsed == 2 * DAY + timedelta(minutes=1)


@pytest.mark.parametrize("engine", ["local", "inngest"])
async def test_an_app_of_the_fixture_streams_and_ends_with_the_test(flowctl_app, flowctl_clock, engine):
    test = await flowctl_app(delivery, engine=engine)
    stream = (await delivery.create_run()).stream({"item": "tea"})
    types = [event.type async for event in stream]
    assert (types[0], types[-1], stream.status) == ("workflow-start", "workflow-finish", "success")
    assert (delivery.app, flowctl_clock.elapsed) == (test, DAY)


async def test_the_fixture_borrows_an_app_too(flowctl_app):
    test = await flowctl_app(app=app)
    assert set(test.workflows) == {"order", "delivery"}


def test_the_apps_of_earlier_tests_are_gone():
    assert order.app is app
"""
MODES = {
    "auto": ("asyncio_mode = auto\nasyncio_default_fixture_loop_scope = function", "", []),
    "strict": (
        "asyncio_mode = strict\nasyncio_default_fixture_loop_scope = function",
        "\npytestmark = pytest.mark.asyncio\n",
        [],
    ),
    "anyio": ("", "\npytestmark = pytest.mark.anyio\n", ["-p", "no:asyncio"]),
}
INI = """[pytest]
filterwarnings =
    error
    ignore:Support for class-based `config`:pydantic.warnings.PydanticDeprecatedSince20
    ignore:.*but it is not an async function:pytest.PytestWarning
"""


@pytest.mark.parametrize("mode", MODES)
def test_a_project_tests_its_workflows(tmp_path: Path, mode: str) -> None:
    options, mark, plugins = MODES[mode]
    hidden = tmp_path / "hidden" / "pytest_asyncio"
    if mode == "anyio":
        hidden.mkdir(parents=True)
        (hidden / "__init__.py").write_text("raise ImportError('not installed here')")
        backend = "import pytest\n\n\n@pytest.fixture\ndef anyio_backend():\n    return 'asyncio'\n"
        (tmp_path / "conftest.py").write_text(backend)
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "test_shop.py").write_text(TESTS.replace("\nDAY =", f"{mark}\nDAY =", 1))
    (tmp_path / "pytest.ini").write_text(f"{INI}{options}\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugins, "test_shop.py"]
    env = os.environ | {"PYTHONPATH": f"{hidden.parent}{os.pathsep}{tmp_path}"}
    ran = subprocess.run(
        command, capture_output=True, text=True, timeout=100, check=False, cwd=tmp_path, env=env
    )
    assert (ran.returncode, "12 passed" in ran.stdout) == (0, True), ran.stdout[-4_000:] + ran.stderr
