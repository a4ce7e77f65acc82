"""Making workflows: `create_workflow`, `clone_workflow`, and what `init` gives, bound to an Inngest client.

Called by users; `workflow` has what is made.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from flowctl.errors import DefinitionError
from flowctl.schema import Schema
from flowctl.step import Schemas, check_id, clone_step, create_step
from flowctl.workflow import In, Options, Out, RetryConfig, Workflow

if TYPE_CHECKING:
    import inngest


def create_workflow(
    *,
    id: str,
    input_schema: type[In] | Any = None,
    output_schema: type[Out] | Any = None,
    state_schema: Any = None,
    request_context_schema: Any = None,
    description: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    retry_config: Mapping[str, int | timedelta] | None = None,
    validate_inputs: bool = True,
    should_persist_snapshot: Callable[..., bool] | None = None,
    on_start: Callable[..., Any] | None = None,
    on_finish: Callable[..., Any] | None = None,
    on_error: Callable[..., Any] | None = None,
    concurrency: Any = None,
    rate_limit: Any = None,
    throttle: Any = None,
    debounce: Any = None,
    priority: Any = None,
    idempotency: str | None = None,
    singleton: Any = None,
    timeouts: Any = None,
    cron: str | Sequence[str] | None = None,
    cron_input: Any = None,
    client: inngest.Inngest | None = None,
) -> Workflow[In, Out]:
    """A new, empty workflow: add steps, then `commit()`.

    Args:
        id: its name, unique in an app.
        input_schema, output_schema, state_schema, request_context_schema: any type pydantic can validate.
        description, metadata: for people, shown with the graph.
        retry_config: `{"attempts": extra tries, "delay": milliseconds or timedelta between them}` for steps
            without `retries` of their own.
        validate_inputs: False passes data on as it is; nested workflows do as the outermost says.
        should_persist_snapshot: asked, whenever a state of a run is stored, whether it is to be shown; called
            with a SnapshotInfo (`workflow_status`, `step_results`). What is listed and read of the run is the
            last state that it was true for, if any; what the run goes on from is stored whatever it says.
        on_start: called with a RunInfo before the first step; raising refuses the start.
        on_finish, on_error: called with a RunInfo at the end, and after a failure; what they raise is logged.
        concurrency, rate_limit, throttle, debounce, priority, idempotency, singleton, timeouts: Inngest's
            flow control, with its names and types; it acts on Inngest.
        cron, cron_input: one schedule or several (`TZ=Europe/Vienna 0 9 * * 1`), and the input of runs that
            they begin; on Inngest.
        client: what `init(client)` binds its workflows to.
    """
    check_id("workflow", id)
    for name, callback in {"on_start": on_start, "on_finish": on_finish, "on_error": on_error}.items():
        if callback is not None and not callable(callback):
            raise DefinitionError(f"Workflow {id!r}: {name} must be a function, or None; got {callback!r}.")
    _check_plain("should_persist_snapshot", should_persist_snapshot, workflow_id=id)
    flow_control = {
        "concurrency": concurrency,
        "rate_limit": rate_limit,
        "throttle": throttle,
        "debounce": debounce,
        "priority": priority,
        "idempotency": idempotency,
        "singleton": singleton,
        "timeouts": timeouts,
    }
    options = Options(
        retry=_retries(retry_config or {}, workflow_id=id),
        validate_inputs=validate_inputs,
        should_persist_snapshot=should_persist_snapshot,
        on_start=on_start,
        on_finish=on_finish,
        on_error=on_error,
        flow_control={name: value for name, value in flow_control.items() if value is not None},
        cron=(cron,) if isinstance(cron, str) else tuple(cron or ()),
        cron_input=cron_input,
    )
    schemas = Schemas(
        input=Schema.of(input_schema),
        output=Schema.of(output_schema),
        state=Schema.of(state_schema),
        request_context=Schema.of(request_context_schema),
    )
    return Workflow(
        id=id, schemas=schemas, options=options, description=description, metadata=metadata, client=client
    )


def clone_workflow(workflow: Workflow[In, Out], *, id: str) -> Workflow[In, Out]:
    """The same workflow under another id, for instance to stand twice in another one.

    Graph, schemas, options and engine are kept; what is added to the clone later is its own.
    """
    copy: Workflow[In, Out] = Workflow(
        id=id,
        schemas=workflow.schemas,
        options=workflow.options,
        description=workflow.description,
        metadata=workflow.metadata,
        client=workflow.client,
    )
    copy.nodes = list(workflow.nodes)
    copy.committed = workflow.committed
    return copy


@dataclass(frozen=True, slots=True)
class Factory:
    """What `init(client)` returns: the authoring functions, bound to an Inngest client."""

    client: inngest.Inngest

    def create_workflow(
        self,
        *,
        id: str,
        input_schema: type[In] | Any = None,
        output_schema: type[Out] | Any = None,
        **options: Any,
    ) -> Workflow[In, Out]:
        """As `flowctl.create_workflow`; the workflow runs on Inngest."""
        return create_workflow(
            id=id, input_schema=input_schema, output_schema=output_schema, client=self.client, **options
        )

    create_step = staticmethod(create_step)
    clone_step = staticmethod(clone_step)
    clone_workflow = staticmethod(clone_workflow)


def init(client: inngest.Inngest) -> Factory:
    """The authoring functions for workflows that run on this Inngest client.

    flow = init(inngest.Inngest(app_id="my-app"))
    workflow = flow.create_workflow(id="w").then(increment).commit()
    """
    return Factory(client)


def _retries(config: Mapping[str, int | timedelta], *, workflow_id: str) -> RetryConfig:
    known = {name: _millis(value) for name, value in config.items()}
    if known.keys() - {"attempts", "delay"} or any(type(v) is not int or v < 0 for v in known.values()):
        raise DefinitionError(
            f"Workflow {workflow_id!r}: retry_config has 'attempts', a whole number, and 'delay', whole "
            f"milliseconds or a timedelta, neither below 0; got {dict(config)!r}."
        )
    return RetryConfig(**known)


def _millis(value: int | timedelta) -> int:
    return int(value.total_seconds() * 1000) if isinstance(value, timedelta) else value


def _check_plain(name: str, function: Any, *, workflow_id: str) -> None:
    if function is not None and (not callable(function) or inspect.iscoroutinefunction(function)):
        raise DefinitionError(
            f"Workflow {workflow_id!r}: {name} must be a plain function (no async one), or None; "
            f"got {function!r}."
        )
