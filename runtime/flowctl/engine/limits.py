"""How large a run may grow, as the real service limits it. Pure."""

from __future__ import annotations

from typing import Any

from flowctl.engine.flow_control import DAY_MS

MAX_STEPS = 1_000
MAX_STEP_BYTES = 4 * 2**20
MAX_STATE_BYTES = 32 * 2**20
MAX_WAIT_MS = 366 * DAY_MS


def overflow(*, steps: int, size: int) -> dict[str, Any] | None:
    """The error of a run that has used up its steps or its state (bytes), None while it has not."""
    if steps >= MAX_STEPS:
        message = f"The function run exceeded the step limit of {MAX_STEPS} steps."
        return _error("InngestErrFunctionOverflowed", "function has too many steps", message)
    if size > MAX_STATE_BYTES:
        message = f"The function run exceeded the state size limit of {MAX_STATE_BYTES} bytes."
        return _error("InngestErrStateOverflowed", "state is too large", message)
    return None


def step_overflow(name: str, size: int) -> dict[str, Any]:
    """The error of a run with a step whose output is larger than `MAX_STEP_BYTES`."""
    message = (
        f"The output of step {name!r} has {size} bytes and exceeds the limit of {MAX_STEP_BYTES} bytes. "
        "Keep what is large elsewhere, and give what names it."
    )
    return _error("InngestErrStepOutputTooLarge", "step output size is greater than the limit", message)


def too_long(what: str, text: str) -> dict[str, Any]:
    """The error of a run whose step would sleep or wait for more than `MAX_WAIT_MS`."""
    message = f"The {what} {text!r} ends more than one year in the future; one year is the most."
    return _error("InngestErrTimeoutTooLong", "timeout exceeds the maximum duration", message)


def invalid_condition(reason: str) -> dict[str, Any]:
    """The error of a run that waits with a condition that is none."""
    message = "Wait for event If expression failed to compile"
    return _error("InvalidExpression", reason, message)


def signal_conflict() -> dict[str, Any]:
    """The error of a run that waits for a signal for which another run waits already."""
    message = "Signal conflict; signal wait already exists for another run"
    return _error("Error", "signal conflict", message)


def _error(name: str, error: str, message: str) -> dict[str, Any]:
    return {"error": error, "name": name, "message": message}
