"""Steps of plain functions, reported while their request goes on: the checkpoints of SDK_SPEC.md, section 10.

A function then goes through its steps once, instead of from its beginning for each of them. Called by
`server.inngest`; what a step is and comes to remains inngest-py's: this takes its result at the point where
the SDK would leave the function with it.
"""

from __future__ import annotations

import asyncio
import copy
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import inngest
import orjson
from inngest._internal.server_lib import Opcode
from inngest._internal.step_lib import ResponseInterrupt, StepInfo, StepResponse
from inngest._internal.types import EmptySentinel

from flowctl.runners.checkpoints import Checkpoints, EndedStep, StaleDispatchError
from flowctl.runners.engine_api import EngineApi
from flowctl.runners.engine_call import EngineCall


def checkpointed(function: inngest.Function[Any], api: EngineApi, *, seconds: float) -> inngest.Function[Any]:
    """A function whose steps are reported as they end, for so many seconds a request.

    The function itself if it is not async, or has middleware that may change what its steps give or are.
    """
    own = function._middleware  # noqa: SLF001 - a function shows it nowhere else  # pyright: ignore[reportPrivateUsage]
    if not function.is_handler_async or transforms_steps(own):
        return function
    twin = copy.copy(function)
    twin._middleware = [*own, partial(_Checkpointing, api, seconds)]  # noqa: SLF001 - nor takes it later  # pyright: ignore[reportPrivateUsage]
    return twin


def transforms_output(middleware: Sequence[Any]) -> bool:
    """Whether one of these changes what steps give, which only inngest-py itself can apply."""
    return _overrides(middleware, "transform_output")


def transforms_steps(middleware: Sequence[Any]) -> bool:
    """As `transforms_output`, or whether one may change what a later request brings, or how steps are run."""
    return transforms_output(middleware) or _overrides(middleware, "transform_input")


def _overrides(middleware: Sequence[Any], hook: str) -> bool:
    plain = getattr(inngest.Middleware, hook), getattr(inngest.MiddlewareSync, hook)
    return any(getattr(one, hook, None) not in plain for one in middleware)


class _Checkpointing(inngest.Middleware):
    """Gives a function steps that report themselves, where the engine waits for no particular one.

    A request that repeats a failed step is left to the SDK: the engine counts its tries until it is answered.
    """

    def __init__(self, api: EngineApi, seconds: float, client: inngest.Inngest, raw_request: object) -> None:
        super().__init__(client, raw_request)
        self._api, self._seconds = api, seconds

    async def transform_input(
        self,
        ctx: inngest.Context | inngest.ContextSync,
        function: inngest.Function[Any],
        steps: inngest.StepMemos,
    ) -> None:
        """See inngest.Middleware."""
        del function, steps
        self._api.note_request()
        call = EngineCall.of(self.raw_request)
        if isinstance(ctx, inngest.Context) and not ctx.attempt and call is not None and self._may(call):
            until = time.monotonic() + self._seconds
            ctx.step = _Step(ctx.step, Checkpoints(self._api, call), until)

    def _may(self, call: EngineCall) -> bool:
        is_any = call.target is None and call.runs_at_once and call.queue_item
        return bool(is_any) and self._api.takes_checkpoints and not transforms_steps(self.client.middleware)


class _Step(inngest.Step):
    """Steps of one request."""

    def __init__(self, plain: inngest.Step, checkpoints: Checkpoints, until: float) -> None:
        self.__dict__ |= plain.__dict__
        self._checkpoints, self._until = checkpoints, until

    async def run(
        self,
        step_id: str,
        handler: Callable[..., Any],
        *handler_args: Any,
        output_type: object = EmptySentinel,
    ) -> Any:
        """See inngest.Step."""
        began = time.time_ns()
        try:
            return await super().run(step_id, handler, *handler_args, output_type=output_type)
        except ResponseInterrupt as left:
            ended = None if time.monotonic() >= self._until else _ended(left.responses, began)
            if ended is None or not await self._taken(ended):
                raise
        return self._client._deserialize(ended.output, output_type)  # noqa: SLF001 - as the SDK does  # pyright: ignore[reportPrivateUsage]

    async def _taken(self, ended: _EndedStep) -> bool:
        """Whether the engine has it now, and so need not be answered with it.

        A timeout of the user's that comes meanwhile finds the step ended, so the request ends with it, as it
        would have at once; one that is given up ends likewise.
        """
        self._checkpoints.waiting.append(ended)
        try:
            return await self._checkpoints.post()
        except (StaleDispatchError, asyncio.CancelledError):
            self._checkpoints.close()
            return False


@dataclass(frozen=True, slots=True)
class _EndedStep(EndedStep):
    """One of the SDK's; `output` is what the function will be given for it by later requests."""

    output: Any = None
    told: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def to_json(self) -> dict[str, Any]:
        """See EndedStep."""
        return {**EndedStep.to_json(self), **self.told}


def _ended(responses: list[StepResponse], began_ns: int) -> _EndedStep | None:
    """What the SDK would leave the function with, if it is what a step came to."""
    response = responses[0]
    info = response.step
    if len(responses) > 1 or info.op is not Opcode.STEP_RUN:
        return None
    try:
        text = json.dumps(response.output)
    except (TypeError, ValueError):
        return None  # the SDK says what is wrong with it
    memo: Any = orjson.Fragment(text)
    ended_ns = time.time_ns()
    return _EndedStep(info.display_name, memo, began_ns, ended_ns, output=json.loads(text), told=_told(info))


def _told(info: StepInfo) -> Mapping[str, Any]:
    of_user = info.userland
    return {"id": info.id} | ({"userland": {"id": of_user.id, "index": of_user.index}} if of_user else {})
