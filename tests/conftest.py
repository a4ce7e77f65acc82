"""Shared fixtures: an app in memory for workflows that a test defines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flowctl import App, SQLiteStorage, Workflow


@pytest.fixture
async def register() -> Any:
    """Register workflows with an app on the local engine, kept in memory."""
    apps: list[App] = []

    def make(*workflows: Workflow[Any, Any]) -> App:
        app = App(workflows=list(workflows), storage=SQLiteStorage(":memory:"), engine="local")
        apps.append(app)
        return app

    yield make
    for app in apps:
        await app.stop()


Register = Callable[..., App]
