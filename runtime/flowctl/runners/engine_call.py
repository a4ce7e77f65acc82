"""What the engine says with a request: which run and step it is for, and the memos of steps that ended.

inngest-py gives a function neither; both come through the middleware hook `transform_input`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import inngest
import orjson

WHOLE_FUNCTION = "step"


@dataclass(frozen=True, slots=True)
class EngineCall:
    """One request of the engine. `target` is the one step it is for, when it is for one.

    `size` is its body's, which lacks the steps when the SDK `fetches_steps` since they are too large for it.
    `stack` has the hashed ids of steps in the order in which they ended, `steps` what they came to, where it
    was sent along.
    """

    run_id: str
    function_id: str
    queue_item: str
    request_id: str
    generation: int
    target: str | None
    runs_at_once: bool
    size: int
    fetches_steps: bool = False
    stack: Sequence[str] = ()
    steps: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @classmethod
    def of(cls, raw_request: Any) -> EngineCall | None:
        """From a request whose body `server.inngest` kept; None from any other."""
        body = getattr(getattr(raw_request, "state", None), "engine_body", None)
        if body is None:
            return None
        given: Mapping[str, Any] = orjson.loads(body)
        ctx: Mapping[str, Any] = given.get("ctx") or {}
        target = raw_request.query_params.get("stepId", WHOLE_FUNCTION)
        return cls(
            run_id=str(ctx.get("run_id", "")),
            function_id=str(ctx.get("fn_id", "")),
            queue_item=str(ctx.get("qi_id", "")),
            request_id=str(ctx.get("request_id") or raw_request.headers.get("x-request-id", "")),
            generation=_generation(ctx, raw_request),
            target=None if target == WHOLE_FUNCTION else target,
            runs_at_once=not ctx.get("disable_immediate_execution"),
            size=len(body),
            fetches_steps=bool(given.get("use_api")),
            stack=(ctx.get("stack") or {}).get("stack") or (),
            steps=given.get("steps") or {},
        )


@dataclass(frozen=True, slots=True)
class Received:
    """A request and the memos it brought; `call` is None when its body was not kept."""

    call: EngineCall | None
    memos: inngest.StepMemos

    @property
    def size(self) -> int:
        """About how many bytes the engine remembers of the leg."""
        if self.call is None or not self.memos.size:
            return 0
        if not self.call.fetches_steps:
            return self.call.size
        return sum(len(orjson.dumps(memo.data)) for memo in self.memos.values())


_received: ContextVar[Received] = ContextVar("flowctl_received")


class ReceiveCall(inngest.Middleware):
    """Puts what came with a request where the function it is for finds it."""

    async def transform_input(
        self,
        ctx: inngest.Context | inngest.ContextSync,
        function: inngest.Function[Any],
        steps: inngest.StepMemos,
    ) -> None:
        """See inngest.Middleware."""
        del ctx, function
        _received.set(Received(EngineCall.of(self.raw_request), steps))


def received() -> Received:
    """What came with the request that is being answered."""
    return _received.get()


def _generation(ctx: Mapping[str, Any], raw_request: Any) -> int:
    given = ctx.get("generation_id") or raw_request.headers.get("x-inngest-generation-id")
    return int(given) if given and str(given).isdigit() else 0
