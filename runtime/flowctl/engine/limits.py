"""How large a run may grow, as the real service limits it. Pure."""

from __future__ import annotations

from typing import Any

MAX_STEPS = 1_000
MAX_STEP_BYTES = 4 * 2**20
MAX_STATE_BYTES = 32 * 2**20


def overflow(*, steps: int, size: int) -> dict[str, Any] | None:
    """The error of a run that has used up its steps or its state (bytes), None while it has not."""
    if steps >= MAX_STEPS:
        message = f"The function run exceeded the step limit of {MAX_STEPS} steps."
        return _error("InngestErrFunctionOverflowed", "function has too many steps", message)
    if size > MAX_STATE_BYTES:
        message = f"The function run exceeded the state size limit of {MAX_STATE_BYTES} bytes."
        return _error("InngestErrStateOverflowed", "state is too large", message)
    return None


def step_overflow(name: str) -> dict[str, Any]:
    """The error of a run with a step whose output is larger than `MAX_STEP_BYTES`."""
    message = f"The output of step {name!r} exceeds the limit of {MAX_STEP_BYTES} bytes."
    return _error("InngestErrStepOutputTooLarge", "step output size is greater than the limit", message)


def _error(name: str, error: str, message: str) -> dict[str, Any]:
    return {"error": error, "name": name, "message": message}
