"""The workflows in this process: sleeps are skipped, nothing waits for seven o'clock."""

from datetime import timedelta

import pytest
from flowctl.testing import TestClock, run_workflow

from __package__ import workflows
from __package__.workflows import Report, Sales, daily_report, refresh_shop


async def test_the_report_has_a_line_a_shop() -> None:
    result = await run_workflow(daily_report, {"shops": ["berlin", "tokyo"]})
    lines = ["berlin: 245 in 3 orders", "tokyo: 300 in 1 orders"]
    assert result.result == Report(title="Sales", lines=lines, total=545)


async def test_a_source_that_answers_late_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[list[int]] = [[7], []]

    async def unreliable(shop: str) -> list[int]:
        if not answers.pop():
            raise ConnectionError(f"no answer about {shop}")
        return [7]

    monkeypatch.setattr(workflows, "sales_of", unreliable)
    result = await run_workflow(daily_report, {"shops": ["berlin"]})
    assert result.status == "success"
    assert answers == []


async def test_a_refresh_lets_bookings_settle_first() -> None:
    clock = TestClock()
    result = await run_workflow(refresh_shop, {"shop": "lisbon"}, clock=clock)
    assert result.result == Sales(shop="lisbon", orders=2, total=135)
    assert clock.elapsed == timedelta(seconds=5)
