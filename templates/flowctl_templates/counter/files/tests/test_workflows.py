"""The workflow in this process: no server, no Inngest."""

import pytest
from flowctl import ValidationError
from flowctl.testing import run_workflow

from __package__.workflows import Counter, increment_workflow


async def test_it_counts_to_ten() -> None:
    result = await run_workflow(increment_workflow, Counter(value=5))
    assert result.result == Counter(value=10)


async def test_it_counts_at_least_once() -> None:
    result = await run_workflow(increment_workflow, Counter(value=41))
    assert result.result == Counter(value=42)


async def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(ValidationError, match="value"):
        await run_workflow(increment_workflow, {"value": "many"})
