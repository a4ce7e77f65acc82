"""Spans and metrics of runs, by the OpenTelemetry SDK, on both engines."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from flowctl import create_step, create_workflow, telemetry


@pytest.fixture
def spans(monkeypatch):
    """What is exported while the test runs."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return exporter.get_finished_spans


async def double(ctx: Any) -> Any:
    with trace.get_tracer("mine").start_as_current_span("inside"):
        return {"value": ctx.input_data["value"] * 2}


async def fail(ctx: Any) -> Any:
    raise ValueError("no")


def doubled_twice() -> Any:
    first, second = create_step(id="first", execute=double), create_step(id="second", execute=double)
    return create_workflow(id="twice").then(first).then(second).commit()


async def test_a_run_has_a_span_and_each_step_one_below_it(register, spans) -> None:
    app = await register(doubled_twice())
    result = await (await app.get_workflow("twice").create_run()).start({"value": 1})
    assert result.result == {"value": 4}
    named = {span.name: span for span in spans() if span.name != "inside"}
    assert sorted(named) == ["run twice", "step first", "step second"]
    run = named["run twice"]
    for name in ("step first", "step second"):
        assert named[name].parent.span_id == run.context.span_id
        assert named[name].context.trace_id == run.context.trace_id
    assert run.attributes["flowctl.status"] == "success"
    assert run.start_time <= named["step first"].start_time + 5_000_000


async def test_spans_of_the_users_code_lie_below_the_step(register, spans) -> None:
    app = await register(doubled_twice())
    await (await app.get_workflow("twice").create_run()).start({"value": 1})
    steps = {span.context.span_id for span in spans() if span.name.startswith("step ")}
    inside = [span for span in spans() if span.name == "inside"]
    assert {span.parent.span_id for span in inside} == steps


async def test_a_failure_is_an_error_of_step_and_run(register, spans) -> None:
    app = await register(create_workflow(id="bad").then(create_step(id="fail", execute=fail)).commit())
    await (await app.get_workflow("bad").create_run()).start({})
    assert {(span.name, span.status.status_code.name) for span in spans()} == {
        ("step fail", "ERROR"), ("run bad", "ERROR"),
    }  # fmt: skip


def test_a_trace_goes_on_over_headers(spans) -> None:
    headers = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    leg = telemetry.LegName("w", "r", 1)
    for step in ("first", "second"):  # two calls of the engine
        with telemetry.continued(headers), telemetry.step_span(leg, step, 0):
            pass
    with telemetry.continued(headers):
        telemetry.leg_ended(leg, "success", None, began=1000, ended=2000)
    first, second, run = spans()
    assert {f"{span.context.trace_id:032x}" for span in spans()} == {"0af7651916cd43dd8448eb211c80319c"}
    assert first.parent.span_id == second.parent.span_id == run.context.span_id
    assert f"{run.parent.span_id:016x}" == "b7ad6b7169203331"


def test_without_a_configured_sdk_nothing_is_recorded() -> None:
    with telemetry.step_span(telemetry.LegName("w", "r", 1), "first", 0) as span:
        assert span.tools is None
        assert not trace.get_current_span().is_recording()
