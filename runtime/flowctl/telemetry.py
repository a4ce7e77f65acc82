"""Spans and metrics of runs and steps, by OpenTelemetry, for apps that have it (the extra `otel`).

Called by `execution` around what happens once (a step's body, a leg's end), by `server.inngest` with the
headers of a call, and by `app`, which counts runs. The only file that imports opentelemetry. Without it, and
without a configured SDK, everything here does nothing; spans and metrics are configured apart.

A leg's span is written when the leg ends, perhaps by another process than the one that ran its steps. So its
id is made from what names the leg, and steps name it as their parent before it is written.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
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
    tracing = _tracing()
    return _SILENT if tracing is None else _step_span(tracing, leg, key, attempt)


@contextlib.contextmanager
def _step_span(tracing: _Tracing, leg: LegName, key: str, attempt: int) -> Generator[StepSpan]:
    attributes = {**leg.attributes(), "flowctl.step": key, "flowctl.attempt": attempt}
    trace = tracing.trace
    parent = trace.set_span_in_context(trace.NonRecordingSpan(_leg_context(tracing, leg)))
    with tracing.tracer.start_as_current_span(
        f"step {key}", parent, attributes=attributes, record_exception=False
    ) as span:
        yield StepSpan(tracing, span)


@dataclass(frozen=True, slots=True)
class StepSpan:
    """The span of a step that is running."""

    tracing: _Tracing | None
    span: Any

    def ended(self, workflow_id: str, key: str, record: StepResult) -> None:
        """Note how it ended."""
        if self.tracing is not None:
            self.span.set_attribute("flowctl.status", record.status)
            _mark_failure(self.tracing, self.span, record.error)
        if (instruments := _instruments()) is not None:
            labels = {"workflow": workflow_id, "step": key, "status": record.status}
            took = _seconds(record.resumed_at or record.started_at, record.ended_at)
            instruments.steps.record(took, labels)


_SILENT = contextlib.nullcontext(StepSpan(None, None))


def leg_begun(leg: LegName, *, queued: int, began: int) -> None:
    """Measure how long a leg waited for its engine; times in epoch milliseconds."""
    if (instruments := _instruments()) is not None:
        instruments.waits.record(_seconds(queued, began), {"workflow": leg.workflow_id})


def leg_ended(leg: LegName, status: str, error: Any, *, began: int, ended: int) -> None:
    """Write the span of a leg, and count it; times in epoch milliseconds."""
    if (tracing := _tracing()) is not None:
        _write_leg(tracing, leg, status, error, began=began, ended=ended)
    if (instruments := _instruments()) is not None:
        instruments.runs.record(_seconds(began, ended), {"workflow": leg.workflow_id, "status": status})


def _write_leg(tracing: _Tracing, leg: LegName, status: str, error: Any, *, began: int, ended: int) -> None:
    here = tracing.trace.get_current_span().get_span_context()
    chosen = _leg_context(tracing, leg)
    token = _chosen.set((chosen.trace_id, chosen.span_id))
    try:
        parent = tracing.trace.set_span_in_context(tracing.trace.NonRecordingSpan(here), tracing.empty)
        span = tracing.tracer.start_span(
            f"run {leg.workflow_id}", parent, attributes=leg.attributes(), start_time=began * 1_000_000
        )
    finally:
        _chosen.reset(token)
    span.set_attribute("flowctl.status", status)
    _mark_failure(tracing, span, error)
    span.end(ended * 1_000_000)


def is_measuring() -> bool:
    """Whether anybody reads metrics."""
    return _instruments() is not None


def runs_counted(counts: Mapping[tuple[str, str], int]) -> None:
    """Tell how many runs there are of a workflow and status."""
    if (instruments := _instruments()) is not None:
        for (workflow_id, status), count in counts.items():
            instruments.stored.set(count, {"workflow": workflow_id, "status": status})


def continued(headers: Mapping[str, str]) -> AbstractContextManager[None]:
    """Within: spans belong to the trace that the headers of a request name, unless one is there already."""
    tracing = _tracing()
    if tracing is None or tracing.trace.get_current_span().get_span_context().is_valid:
        return contextlib.nullcontext()
    return _attached(tracing, tracing.extract(headers))


@contextlib.contextmanager
def _attached(tracing: _Tracing, context: Any) -> Generator[None]:
    token = tracing.context.attach(context)
    try:
        yield
    finally:
        tracing.context.detach(token)


def _leg_context(tracing: _Tracing, leg: LegName) -> Any:
    """The ids of a leg's span: in the trace around it, or in one of its own."""
    here = tracing.trace.get_current_span().get_span_context()
    digest = hashlib.sha256(f"{leg.workflow_id}\0{leg.run_id}\0{leg.leg}".encode()).digest()
    own_trace = int.from_bytes(digest[:16]) or 1
    return tracing.trace.SpanContext(
        trace_id=here.trace_id if here.is_valid else own_trace,
        span_id=int.from_bytes(digest[16:24]) or 1,
        is_remote=True,
        trace_flags=here.trace_flags if here.is_valid else tracing.trace.TraceFlags(1),
    )


def _mark_failure(tracing: _Tracing, span: Any, error: Any) -> None:
    if error is not None:
        span.set_status(tracing.trace.StatusCode.ERROR, str(error))


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
class _Tracing:
    """OpenTelemetry's spans, as far as they are used here."""

    trace: Any
    context: Any
    empty: Any
    extract: Any
    tracer: Any


@dataclass(frozen=True, slots=True)
class _Instruments:
    """What is measured."""

    steps: Any
    runs: Any
    waits: Any
    stored: Any


def _may_be_configured() -> bool:
    return "opentelemetry.sdk" in sys.modules or _is_chosen()


@cache
def _is_chosen() -> bool:
    """Whether the environment names a provider, which OpenTelemetry loads when it is asked for it."""
    named = any(os.environ.get(f"OTEL_PYTHON_{kind}_PROVIDER") for kind in ("TRACER", "METER"))
    return named and find_spec("opentelemetry") is not None


def _tracing() -> _Tracing | None:
    if not _may_be_configured():
        return None
    from opentelemetry import trace  # noqa: PLC0415 - an extra

    provider = trace.get_tracer_provider()
    return _tracing_by(provider) if hasattr(provider, "id_generator") else None


@cache
def _tracing_by(provider: Any) -> _Tracing:
    from opentelemetry import context, propagate, trace  # noqa: PLC0415 - an extra

    tracer: Any = provider.get_tracer(NAME)
    tracer.id_generator = _Ids(tracer.id_generator)
    return _Tracing(trace, context, context.Context(), propagate.extract, tracer)


def _instruments() -> _Instruments | None:
    if not _may_be_configured():
        return None
    from opentelemetry import metrics  # noqa: PLC0415 - an extra

    provider = metrics.get_meter_provider()
    return _instruments_of(provider) if hasattr(provider, "force_flush") else None


@cache
def _instruments_of(provider: Any) -> _Instruments:
    meter = provider.get_meter(NAME)
    return _Instruments(
        meter.create_histogram("flowctl.step.duration", "s", "How long tries of steps took"),
        meter.create_histogram("flowctl.run.duration", "s", "How long legs of runs took"),
        meter.create_histogram("flowctl.run.wait", "s", "How long legs waited until their engine began"),
        meter.create_gauge("flowctl.runs", "{run}", "How many runs are pending, under way or suspended"),
    )
