"""The context that conditions and dynamic values are given: a step's, without suspend and bail."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from flowctl.context import ContextFacts, StepContext
from flowctl.errors import FlowctlError
from flowctl.execution.walk import Scope, Walk
from flowctl.request_context import RequestContext
from flowctl.schema import own_copy, parse_leniently


def condition(
    walk: Walk, scope: Scope, typed: Any, *, iteration: int = 0, own: Mapping[str, Any] = MappingProxyType({})
) -> StepContext[Any]:
    """A context whose `input_data` is the typed output before (or of the loop's step), which it may change.

    `own` is the output by id of a step that has just ended, whose record is not committed yet.
    """
    return StepContext(
        ContextFacts(
            input_data=typed,
            resume_data=None,
            suspend_data=None,
            state=parse_leniently(scope.workflow.schemas.state, own_copy(walk.state)),
            request_context=RequestContext(walk.request_context.to_json()),
            writer=_Silent(),
            run_id=walk.run_id,
            workflow_id=scope.workflow.id,
            resource_id=walk.env.resource_id,
            retry_count=-1,
            iteration_count=iteration,
            abort_signal=walk.env.abort_signal,
            logger=walk.env.logger,
            engine=walk.env.engine,
            idempotency_key=walk.run_id,
            app=walk.env.app,
            init_data=lambda: parse_leniently(scope.workflow.schemas.input, own_copy(scope.input)),
            step_result=lambda id: own_copy(own[id] if id in own else walk.output_of(scope, id)),
            set_state=_refuse_state,
            may_leave=False,
        )
    )


class _Silent:
    """A writer for places that have no stream of their own."""

    def write(self, value: Any) -> None:  # noqa: ARG002 - the protocol passes a value
        raise FlowctlError("ctx.writer works in steps only, not in conditions and dynamic values.")

    def custom(self, event: Any) -> None:
        self.write(event)


def _refuse_state(_: Any) -> None:
    raise FlowctlError("ctx.set_state works in steps only, not in conditions and dynamic values.")
