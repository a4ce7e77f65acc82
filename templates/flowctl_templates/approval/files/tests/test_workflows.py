"""The people's part, played by tests: no server, runs in memory."""

from collections.abc import AsyncGenerator
from typing import Any

import pytest
from flowctl import Run, ValidationError
from flowctl.testing import TestApp

from __package__.workflows import Plan, plan_vacation

WISH = {"vacation_description": "a quiet beach"}
YES = {"approved": True}


@pytest.fixture
async def run() -> AsyncGenerator[Run[Any]]:
    """A run that waits for the traveller."""
    async with TestApp(workflows=[plan_vacation]) as app:
        run = await app.get_workflow("plan-vacation").create_run()
        await run.start(WISH)
        yield run


async def test_the_traveller_is_asked_first(run: Run[Any]) -> None:
    result = await run.resume(step="human-input", resume_data={"selection": "Algarve"})
    assert result.suspended == [["sign-off", "manager"], ["sign-off", "finance"]]


async def test_it_is_booked_when_both_have_signed(run: Run[Any]) -> None:
    await run.resume(resume_data={"selection": "Algarve"})
    await run.resume(step="sign-off.manager", resume_data={"approved": True, "comment": "Enjoy!"})
    result = await run.resume(step="sign-off.finance", resume_data=YES)
    assert result.result == Plan(selection="Algarve", booked=True, comments=["Enjoy!"])


async def test_one_refusal_is_enough(run: Run[Any]) -> None:
    await run.resume(resume_data={"selection": "Okinawa"})
    await run.resume(step="sign-off.finance", resume_data={"approved": False})
    result = await run.resume(step="sign-off.manager", resume_data=YES)
    assert result.result == Plan(selection="Okinawa", booked=False, comments=[])


async def test_an_answer_that_does_not_fit_is_refused_and_nothing_is_lost(run: Run[Any]) -> None:
    with pytest.raises(ValidationError, match="selection"):
        await run.resume(resume_data={"choice": "Algarve"})
    result = await run.resume(resume_data={"selection": "Algarve"})
    assert result.status == "suspended"
