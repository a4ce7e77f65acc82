"""Fixtures for tests of workflows; pytest finds them by the entry point `flowctl`, nothing else does."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from flowctl.result import RunResult
from flowctl.testing import TestApp, TestClock, run_workflow
from flowctl.workflow import Workflow

try:
    from pytest_asyncio import fixture as async_fixture
except ImportError:  # another plugin, anyio's for one, runs the async tests and their fixtures
    from pytest import fixture as async_fixture  # noqa: PT013 - the same name as above


@pytest.fixture
def flowctl_clock() -> TestClock:
    """The clock of this test's runs: it skips sleeps, and tells how much time they took."""
    return TestClock()


@pytest.fixture
def flowctl_run(flowctl_clock: TestClock) -> Callable[..., Awaitable[RunResult[Any]]]:
    """`run_workflow` on this test's clock: `result = await flowctl_run(workflow, {"value": 5})`."""
    return partial(run_workflow, clock=flowctl_clock)


@async_fixture
async def flowctl_app(flowctl_clock: TestClock) -> AsyncGenerator[Callable[..., Awaitable[TestApp]]]:
    """Starts apps that end with the test: `app = await flowctl_app(workflow, engine="inngest")`.

    Takes workflows, and the options of TestApp by name (`app=` for an app that exists).
    """
    async with contextlib.AsyncExitStack() as stack:

        async def start(*workflows: Workflow[Any, Any], **options: Any) -> TestApp:
            options.setdefault("clock", flowctl_clock)
            return await stack.enter_async_context(TestApp(workflows=workflows, **options))

        yield start
