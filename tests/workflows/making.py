"""Short forms in which tests of workflows are written."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from flowctl import RunResult, Step, StepContext, create_step


def _same(ctx: StepContext[Any]) -> Any:
    return ctx.input_data


class Ran(list[str]):
    """The ids of the steps that ran, in their order; makes steps that note it."""

    def step(self, id: str, work: Callable[[Any], Any] = _same, **options: Any) -> Step[Any, Any]:
        """A step whose code is a function of its context; without one it passes its input on."""

        async def execute(ctx: StepContext[Any]) -> Any:
            self.append(id)
            answer = work(ctx)
            return await answer if inspect.isawaitable(answer) else answer

        return create_step(id=id, execute=execute, **options)

    def taken(self) -> list[str]:
        """What ran since the last look."""
        noted = list(self)
        self.clear()
        return noted


async def start(workflow: Any, input_data: Any = None, **options: Any) -> RunResult[Any]:
    """Run a workflow to its first stop."""
    return await (await workflow.create_run()).start(input_data, **options)
