"""Workflows: the builder that makes the step graph.

Called by users; calls `graph` for the nodes and `run` for handles. The builder mutates and returns itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, Self, get_args

from typing_extensions import TypeVar

from flowctl import graph, mapping
from flowctl.context import StepContext
from flowctl.errors import DefinitionError, Issue, StepNotFoundError, ValidationError
from flowctl.snapshot import RunStatus
from flowctl.step import Schemas, Step
from flowctl.stored import in_detail
from flowctl.stored_run import StoredRuns
from flowctl.views import picked, untraced

if TYPE_CHECKING:
    import inngest

    from flowctl.app import App
    from flowctl.run import Run
    from flowctl.stored_run import StoredRun

In = TypeVar("In", default=Any)
Out = TypeVar("Out", default=Any)
StepOut = TypeVar("StepOut", default=Any)

Condition = Callable[[StepContext[StepOut]], bool | Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class RetryConfig:
    """How often a failed step is tried again, and after how many milliseconds."""

    attempts: int = 0
    delay: int = 0


@dataclass(frozen=True, slots=True)
class Options:
    """A workflow's settings beside its graph."""

    retry: RetryConfig = RetryConfig()
    validate_inputs: bool = True
    should_persist_snapshot: Callable[..., bool] | None = None
    on_start: Callable[..., Any] | None = None
    on_finish: Callable[..., Any] | None = None
    on_error: Callable[..., Any] | None = None
    flow_control: Mapping[str, Any] = field(default_factory=dict[str, Any])
    cron: tuple[str, ...] = ()
    cron_input: Any = None


class Workflow(Generic[In, Out]):
    """A typed graph of steps. Build it with the methods below, then `commit` and `create_run`.

        workflow = create_workflow(id="w", input_schema=Counter, output_schema=Counter)
        workflow.dountil(increment, lambda ctx: ctx.input_data.value >= 10).commit()
        result = await (await workflow.create_run()).start({"value": 5})

    Each method changes the workflow and returns it. A workflow is a step too, wherever one may stand. Methods
    raise DefinitionError for what is no step; ids must differ within a workflow.
    """

    def __init__(
        self,
        *,
        id: str,
        schemas: Schemas,
        options: Options,
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        client: inngest.Inngest | None = None,
    ) -> None:
        self.id = id
        self.schemas = schemas
        self.options = options
        self.description = description
        self.metadata = metadata
        self.client = client
        self.nodes: list[graph.Node] = []
        self._graph: list[dict[str, Any]] | None = None
        self.committed = False
        self.app: App | None = None

    if not TYPE_CHECKING:  # for type checkers an attribute that is not there stays an error

        def __getattr__(self, name: str) -> Any:
            """No attribute of that name: says what to use for one that other workflow tools have."""
            missing = f"{type(self).__name__!r} object has no attribute {name!r}"
            if name == "wait_for_event":
                missing = (
                    "wait_for_event has been removed: a step waits for an answer with ctx.suspend(), "
                    "and run.resume() brings it."
                )
            raise AttributeError(missing, name=name, obj=self)

    @property
    def is_workflow(self) -> bool:
        """Always True: tells a nested workflow from a step."""
        return True

    @property
    def steps(self) -> dict[str, Step[Any, Any] | Workflow[Any, Any]]:
        """The steps by id, in graph order; nested workflows count as one."""
        return {step.id: step for node in self.nodes for step in graph.steps_of(node)}

    @property
    def serialized_step_graph(self) -> list[dict[str, Any]]:
        """The graph as JSON data, as snapshots and the API show it."""
        if self._graph is None or not self.committed:
            self._graph = [node.to_json() for node in self.nodes]
        return self._graph

    def then(self, step: Step[Any, Any] | Workflow[Any, Any]) -> Self:
        """Run a step (or a workflow) next."""
        return self._add(graph.StepNode(_checked(step)))

    def parallel(self, steps: Sequence[Step[Any, Any] | Workflow[Any, Any]]) -> Self:
        """Run steps at once, with the same input; the output is a dict by step id.

        When one fails the others end first; the run fails with the first failure in the list's order.
        """
        if not steps:
            raise DefinitionError(f"Workflow {self.id!r}: parallel needs at least one step.")
        return self._add(graph.ParallelNode(tuple(_checked(step) for step in steps)))

    def branch(self, arms: Sequence[tuple[Condition[Any], Step[Any, Any] | Workflow[Any, Any]]]) -> Self:
        """Run every arm whose condition is true, at once; the output is a dict by step id of those that ran.

        A condition is a function of the context, or an async one; one that raises counts as false and is
        logged. With no arm to run the output is `{}`.
        """
        if not arms:
            raise DefinitionError(f"Workflow {self.id!r}: branch needs at least one (condition, step) pair.")
        return self._add(graph.ConditionalNode(tuple(self._arm(arm) for arm in arms)))

    def dowhile(
        self, step: Step[Any, StepOut] | Workflow[Any, StepOut], condition: Condition[StepOut]
    ) -> Self:
        """Run a step, and again while the condition holds for its output; each output is the next input.

        The condition's context has the output as `input_data`, and `iteration_count` from 1. One that raises
        fails the run.
        """
        return self._add(graph.LoopNode(_checked(step), self._condition(condition), "dowhile"))

    def dountil(
        self, step: Step[Any, StepOut] | Workflow[Any, StepOut], condition: Condition[StepOut]
    ) -> Self:
        """Run a step, and again until the condition holds for its output: see `dowhile`."""
        return self._add(graph.LoopNode(_checked(step), self._condition(condition), "dountil"))

    def foreach(
        self,
        step: Step[Any, Any] | Workflow[Any, Any],
        *,
        concurrency: int | Callable[[StepContext[Any]], Any] = 1,
    ) -> Self:
        """Run a step for each item of the list before it; the output is the list of outputs, in order.

        `concurrency` items run at a time: a number, or a function of the context (what it answers is
        rounded down, and 1 where it is less or no number). The next item starts as soon as one ends.
        """
        if not callable(concurrency) and not (_is_whole(concurrency) and concurrency >= 1):
            raise DefinitionError(
                f"Workflow {self.id!r}: foreach concurrency must be 1 or more, or a function; "
                f"got {concurrency!r}."
            )
        return self._add(graph.ForeachNode(_checked(step), concurrency))

    def map(
        self, source: Callable[[StepContext[Any]], Any] | Mapping[str, Any], *, id: str | None = None
    ) -> Self:
        """Shape the data for the next step: by a function of the context, or key by key.

        A key's source is one of `{"step": step or list, "path": "a.b"}`, `{"init_data": True, "path": …}`,
        `{"value": constant}`, `{"fn": function of the context}`, `{"request_context_path": key}` and
        `{"template": "text ${scope.path}"}` with the scopes `inputData`, `initData`, `state`,
        `requestContext` and `stepResults.<id>`. A map is a step, with a record under `id`. Raises
        DefinitionError for a source that is none of these; a path that leads nowhere fails the run.
        """
        taken = {known for node in self.nodes for known in graph.ids_of(node)}
        ordinal = sum(isinstance(node, graph.StepNode) and node.map_config is not None for node in self.nodes)
        step = mapping.step_for(source, id=id or _free_id(f"mapping_{self.id}_", ordinal, taken))
        return self._add(graph.StepNode(step, map_config=mapping.describe(source)))

    def sleep(
        self, duration: int | timedelta | Callable[[StepContext[Any]], Any], *, id: str | None = None
    ) -> Self:
        """Pause for milliseconds, a timedelta, or what a function of the context says; durable.

        The input passes through. Nothing, or less, does not wait.
        """
        if isinstance(duration, timedelta):
            duration = int(duration.total_seconds() * 1000)
        if not callable(duration) and not _is_whole(duration):
            raise DefinitionError(
                f"Workflow {self.id!r}: sleep takes whole milliseconds, a timedelta or a function; "
                f"got {duration!r}."
            )
        return self._add(graph.SleepNode(id or self._sleep_id(), duration))

    def sleep_until(
        self, date: datetime | Callable[[StepContext[Any]], Any], *, id: str | None = None
    ) -> Self:
        """Pause until a date, or until what a function says: a datetime, or text in ISO 8601 form.

        A date without a time zone is local time; one that has passed does not wait.
        """
        if not callable(date) and not isinstance(date, datetime):  # pyright: ignore[reportUnnecessaryIsInstance] - callers need not check types
            raise DefinitionError(
                f"Workflow {self.id!r}: sleep_until takes a datetime or a function; got {date!r}."
            )
        return self._add(graph.SleepUntilNode(id or self._sleep_id(), date))

    def commit(self) -> Self:
        """Close the graph: from here on the workflow can run.

        Raises DefinitionError for a graph without steps, or with one id for two different steps.
        """
        if not self.nodes:
            raise DefinitionError(
                "Execution flow of workflow is not defined. Add steps to the workflow via .then(), "
                f".branch(), etc. (workflow {self.id!r})"
            )
        self._check_ids()
        self.committed = True
        return self

    async def create_run(self, run_id: str | None = None, resource_id: str | None = None) -> Run[Out]:
        """A handle on a new run, stored as pending, or on the stored one when its id is given.

        The id is a UUID unless given; `resource_id` says whom or what the run is for. Raises DefinitionError
        for a graph that is empty or was changed since `commit`, StorageError without its database.
        """
        from flowctl.run import create_run  # noqa: PLC0415 - run needs Workflow: the cycle is cut here

        if not self.nodes:
            self.commit()
        if not self.committed:
            raise DefinitionError(
                f"Workflow {self.id!r}: Uncommitted step flow changes detected. "
                "Call .commit() to register the steps."
            )
        return await create_run(self, run_id=run_id, resource_id=resource_id)

    async def list_workflow_runs(
        self,
        *,
        status: RunStatus | None = None,
        resource_id: str | None = None,
        from_date: datetime | None = None,
        to_date: datetime | None = None,
        page: int | None = None,
        per_page: int | None = None,
    ) -> StoredRuns:
        """Stored runs, newest first, as `.runs`, and how many there are on all pages, as `.total`.

        `page` counts from 0 and acts together with `per_page`; dates are those of the run's creation, both
        inclusive (without a time zone: local time). A workflow that is registered with no app has no runs.
        Raises ValidationError for a negative page and a status that there is not.
        """
        if status is not None and status not in (known := get_args(RunStatus)):
            issue = Issue("status", f"Input should be one of {', '.join(known)}")
            raise ValidationError("Invalid filter of runs", [issue])
        if self.app is None:
            return StoredRuns([], 0)
        return await (await self.app.opened()).list_runs(
            self.id,
            status=status,
            resource_id=resource_id,
            from_date=from_date,
            to_date=to_date,
            page=page,
            per_page=per_page,
        )

    async def get_workflow_run_by_id(
        self, run_id: str, *, with_nested_workflows: bool = True, fields: Collection[str] | None = None
    ) -> StoredRun | None:
        """One stored run, or None: `status`, `steps` by id, `result`, `error`, `state`, `resource_id`, times.

        Steps of nested workflows are named `outer.inner` (`outer[0].inner` in a foreach); a nested workflow
        with a suspended step inside counts as running then. `with_nested_workflows=False` leaves them out.
        With `fields` (`["steps", "result"]`) all others but the status are empty or None, and the run's ids
        and times are there; raises ValueError for a name that is no field.
        """
        storage = await self._home().opened()
        run = await in_detail(storage, self.id, run_id, nested=with_nested_workflows)
        if run is None:
            return None
        snapshot = untraced(run.snapshot)
        return replace(run, snapshot=snapshot if fields is None else picked(snapshot, fields))

    async def delete_workflow_run_by_id(self, run_id: str) -> bool:
        """Forget a run; False when there was none. Whoever waits for its end gets RunNotFoundError."""
        app = self._home()
        was_there = await (await app.opened()).delete_run(self.id, run_id)
        app.feed.wake(self.id, run_id, at_rest=True)
        return was_there

    @property
    def nested(self) -> list[Workflow[Any, Any]]:
        """The workflows that stand in this one as steps."""
        return [step for step in self.steps.values() if isinstance(step, Workflow)]

    @property
    def runs_apart(self) -> bool:
        """Whether it is a function of its own also where it is nested, for its flow control to hold there.

        A debounced one is not: of several starts the engine would answer the last alone.
        """
        return bool(self.options.flow_control) and "debounce" not in self.options.flow_control

    def step_named(self, path: str) -> Step[Any, Any] | Workflow[Any, Any]:
        """The step with that id or dotted path; raises StepNotFoundError naming those there are."""
        if path in self.steps:
            return self.steps[path]
        head, _, rest = path.partition(".")
        inner = self.steps.get(head)
        if rest and isinstance(inner, Workflow):
            return inner.step_named(rest)
        raise StepNotFoundError(
            f"Workflow {self.id!r} has no step {path!r}. There is: {', '.join(self.steps)}."
        )

    def _home(self) -> App:
        from flowctl.app import default_app  # noqa: PLC0415 - the app imports workflows: the cycle is cut here

        return self.app or default_app()

    def _add(self, node: graph.Node) -> Self:
        self.nodes.append(node)
        self._graph, self.committed = None, False
        return self

    def _condition(self, condition: Any) -> Any:
        if not callable(condition):
            raise DefinitionError(
                f"Workflow {self.id!r}: a condition must be a function of the context, not {condition!r}."
            )
        return condition

    def _arm(self, arm: Any) -> Any:
        if not isinstance(arm, tuple | list) or len(arm) != 2:
            raise DefinitionError(f"Workflow {self.id!r}: branch takes (condition, step) pairs, not {arm!r}.")
        return self._condition(arm[0]), _checked(arm[1])

    def _sleep_id(self) -> str:
        count = sum(isinstance(node, graph.SleepNode | graph.SleepUntilNode) for node in self.nodes)
        taken = {known for node in self.nodes for known in graph.ids_of(node)}
        return _free_id(f"sleep_{self.id}_", count, taken)

    def _check_ids(self) -> None:
        seen: dict[str, object] = {}
        for node in self.nodes:
            for id, thing in zip(graph.ids_of(node), graph.steps_of(node) or (node,), strict=True):
                if seen.setdefault(id, thing) is not thing:
                    raise DefinitionError(
                        f"Workflow {self.id!r} has two different steps with the id {id!r}: "
                        "give one another id, for example with clone_step."
                    )


def _checked(step: Any) -> Any:
    if isinstance(step, Step | Workflow):
        return step
    made = (
        "a function: decorate it with @step or pass it to create_step"
        if inspect.isfunction(step)
        else repr(step)
    )
    raise DefinitionError(f"Expected a Step or a Workflow, got {made}.")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _free_id(prefix: str, ordinal: int, taken: set[str]) -> str:
    while f"{prefix}{ordinal}" in taken:
        ordinal += 1
    return f"{prefix}{ordinal}"
