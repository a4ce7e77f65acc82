"""Storages of every kind, each on a database of its own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.storage.databases import DATABASES, Database


@pytest.fixture(params=DATABASES)
async def database(request: pytest.FixtureRequest, tmp_path: Any) -> AsyncIterator[Database]:
    """An empty database of each kind."""
    dsn = request.getfixturevalue("postgres_dsn") if request.param == "postgres" else ""
    async with contextlib.aclosing(Database(request.param, tmp_path, dsn)) as made:
        yield made


@pytest.fixture(params=[name for name in DATABASES if name != "memory"])
async def shared(request: pytest.FixtureRequest, tmp_path: Any) -> AsyncIterator[Database]:
    """An empty database of each kind that several processes can use."""
    dsn = request.getfixturevalue("postgres_dsn") if request.param == "postgres" else ""
    async with contextlib.aclosing(Database(request.param, tmp_path, dsn)) as made:
        yield made


@pytest.fixture
def storage(database: Database) -> Any:
    """A storage of each kind."""
    return database.storage()
