"""Spans and metrics of runs and steps, by OpenTelemetry, for apps that have it (the extra `otel`).

Called by `execution` around what happens once (a step's body, a leg's end) and by `server.inngest` with the
headers of a call. The only file that imports opentelemetry. Without it, and without a configured SDK,
everything here does nothing.

A leg's span is written when the leg ends, perhaps by another process than the one that ran its steps. So its
id is made from what names the leg, and steps name it as their parent before it is written.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowctl.snapshot import StepResult

NAME = "flowctl"
_chosen: ContextVar[tuple[int, int] | None] = ContextVar("flowctl_chosen_ids", default=None)


@dataclass(frozen=True, slots=True)
class LegName:
    """What tells a leg of a run from all others."""

    workflow_id: str
    run_id: str
    leg: int

    def attributes(self) -> dict[str, str | int]:
        """As spans and metrics carry it."""
        return {"flowctl.workflow": self.workflow_id, "flowctl.run": self.run_id, "flowctl.leg": self.leg}


def step_span(leg: LegName, key: str, attempt: int) -> AbstractContextManager[StepSpan]:
    """Around a step's body: the span is the current one for the user's code."""
    tools = _tools()
    return _SILENT if tools is None else _step_span(tools, leg, key, attempt)


@contextlib.contextmanager
def _step_span(tools: Any, leg: LegName, key: str, attempt: int) -> Generator[StepSpan]:
    attributes = {**leg.attributes(), "flowctl.step": key, "flowctl.attempt": attempt}
    parent = tools.trace.set_span_in_context(tools.trace.NonRecordingSpan(_leg_context(tools, leg)))
    with tools.tracer.start_as_current_span(
        f"step {key}", parent, attributes=attributes, record_exception=False
    ) as span:
        yield StepSpan(tools, span)


@dataclass(frozen=True, slots=True)
class StepSpan:
    """The span of a step that is running."""

    tools: Any
    span: Any

    def ended(self, workflow_id: str, key: str, record: StepResult) -> None:
        """Note how it ended."""
        if self.tools is None:
            return
        self.span.set_attribute("flowctl.status", record.status)
        _mark_failure(self.tools, self.span, record.error)
        labels = {"workflow": workflow_id, "step": key, "status": record.status}
        self.tools.steps.record(_seconds(record.resumed_at or record.started_at, record.ended_at), labels)


_SILENT = contextlib.nullcontext(StepSpan(None, None))


def leg_ended(leg: LegName, status: str, error: Any, *, began: int, ended: int) -> None:
    """Write the span of a leg, and count it; times in epoch milliseconds."""
    tools = _tools()
    if tools is None:
        return
    here = tools.trace.get_current_span().get_span_context()
    chosen = _leg_context(tools, leg)
    token = _chosen.set((chosen.trace_id, chosen.span_id))
    try:
        parent = tools.trace.set_span_in_context(tools.trace.NonRecordingSpan(here), tools.empty)
        span = tools.tracer.start_span(
            f"run {leg.workflow_id}", parent, attributes=leg.attributes(), start_time=began * 1_000_000
        )
    finally:
        _chosen.reset(token)
    span.set_attribute("flowctl.status", status)
    _mark_failure(tools, span, error)
    span.end(ended * 1_000_000)
    tools.runs.record(_seconds(began, ended), {"workflow": leg.workflow_id, "status": status})


def continued(headers: Mapping[str, str]) -> AbstractContextManager[None]:
    """Within: spans belong to the trace that the headers of a request name, unless one is there already."""
    tools = _tools()
    if tools is None or tools.trace.get_current_span().get_span_context().is_valid:
        return contextlib.nullcontext()
    return _attached(tools, tools.extract(headers))


@contextlib.contextmanager
def _attached(tools: Any, context: Any) -> Generator[None]:
    token = tools.context.attach(context)
    try:
        yield
    finally:
        tools.context.detach(token)


def _leg_context(tools: Any, leg: LegName) -> Any:
    """The ids of a leg's span: in the trace around it, or in one of its own."""
    here = tools.trace.get_current_span().get_span_context()
    digest = hashlib.sha256(f"{leg.workflow_id}\0{leg.run_id}\0{leg.leg}".encode()).digest()
    own_trace = int.from_bytes(digest[:16]) or 1
    return tools.trace.SpanContext(
        trace_id=here.trace_id if here.is_valid else own_trace,
        span_id=int.from_bytes(digest[16:24]) or 1,
        is_remote=True,
        trace_flags=here.trace_flags if here.is_valid else tools.trace.TraceFlags(1),
    )


def _mark_failure(tools: Any, span: Any, error: Any) -> None:
    if error is not None:
        span.set_status(tools.trace.StatusCode.ERROR, str(error))


def _seconds(began: int | None, ended: int | None) -> float:
    return max(0, (ended or 0) - (began or 0)) / 1000 if began and ended else 0.0


class _Ids:
    """Ids that were chosen for the next span, else those of the SDK's own generator."""

    def __init__(self, usual: Any) -> None:
        self.usual = usual

    def generate_trace_id(self) -> int:
        chosen = _chosen.get()
        return chosen[0] if chosen else self.usual.generate_trace_id()

    def generate_span_id(self) -> int:
        chosen = _chosen.get()
        return chosen[1] if chosen else self.usual.generate_span_id()

    def is_trace_id_random(self) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class _Tools:
    """OpenTelemetry, as far as it is used here."""

    trace: Any
    context: Any
    empty: Any
    extract: Any
    tracer: Any
    steps: Any
    runs: Any


def _tools() -> _Tools | None:
    return _configured() if _is_installed() else None


@cache
def _is_installed() -> bool:
    return find_spec("opentelemetry") is not None and find_spec("opentelemetry.sdk") is not None


def _configured() -> _Tools | None:
    from opentelemetry import trace  # noqa: PLC0415 - an extra

    provider = trace.get_tracer_provider()
    return _tools_of(provider) if hasattr(provider, "id_generator") else None


@cache
def _tools_of(provider: Any) -> _Tools:
    from opentelemetry import context, metrics, propagate, trace  # noqa: PLC0415 - an extra

    tracer: Any = provider.get_tracer(NAME)
    tracer.id_generator = _Ids(tracer.id_generator)
    meter = metrics.get_meter(NAME)
    return _Tools(
        trace,
        context,
        context.Context(),
        propagate.extract,
        tracer,
        meter.create_histogram("flowctl.step.duration", "s", "How long tries of steps took"),
        meter.create_histogram("flowctl.run.duration", "s", "How long legs of runs took"),
    )
