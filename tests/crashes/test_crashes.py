"""No run is lost and nothing finished runs again, whoever is killed at whatever durable operation.

A sample of the points here; all of them with `make soak-crashes`.
"""

from __future__ import annotations

import subprocess
import sys

import pytest


def crash(*arguments: str) -> str:
    command = [sys.executable, "-m", "tests.crashes", *arguments]
    played = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False)
    assert played.returncode == 0, played.stdout + played.stderr[-3_000:]
    return played.stdout


@pytest.mark.parametrize("deaths", ["1", "3"])
def test_a_run_of_the_local_engine_survives_kills(deaths: str) -> None:
    assert "12 stories" in crash("local", "--sample", "12", "--deaths", deaths)


@pytest.mark.parametrize("deaths", ["1", "2"])
def test_a_run_of_the_local_engine_survives_kills_on_postgres(postgres_dsn: str, deaths: str) -> None:
    assert "6 stories" in crash("local", "--sample", "6", "--deaths", deaths, "--dsn", postgres_dsn)


@pytest.mark.parametrize("victim", ["worker", "engine"])
def test_a_run_on_inngest_survives_kills(victim: str) -> None:
    assert "2 stories" in crash(victim, "--sample", "2")


def test_a_long_run_on_inngest_survives_kills_between_its_legs() -> None:
    assert "4 stories" in crash("worker", "--sample", "4", "--leg", "5")


def test_a_run_whose_nested_workflows_are_functions_survives_kills() -> None:
    assert "2 stories" in crash("worker", "--sample", "2", "--apart")


@pytest.mark.parametrize("victim", ["worker", "engine"])
def test_a_run_in_a_crowd_survives_kills(victim: str) -> None:
    assert "3 stories" in crash(victim, "--sample", "3", "--crowded")
