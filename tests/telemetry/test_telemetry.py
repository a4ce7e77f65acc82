"""Spans and metrics of runs, by the OpenTelemetry SDK, on both engines."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from flowctl import App, MemoryStorage, create_step, create_workflow, telemetry


@pytest.fixture
def spans(monkeypatch):
    """What is exported while the test runs."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return exporter.get_finished_spans


@pytest.fixture
def measured(monkeypatch):
    """What was measured while the test runs: the points of an instrument."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    monkeypatch.setattr(metrics._internal, "_METER_PROVIDER", provider)

    def points(name: str) -> list[tuple[dict[str, Any], Any]]:
        found = reader.get_metrics_data()
        return [
            (dict(point.attributes), point)
            for resource in (found.resource_metrics if found else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]

    yield points
    provider.shutdown()


async def double(ctx: Any) -> Any:
    with trace.get_tracer("mine").start_as_current_span("inside"):
        return {"value": ctx.input_data["value"] * 2}


async def fail(ctx: Any) -> Any:
    raise ValueError("no")


async def ask(ctx: Any) -> Any:
    return ctx.resume_data or await ctx.suspend()


def doubled_twice() -> Any:
    first, second = create_step(id="first", execute=double), create_step(id="second", execute=double)
    return create_workflow(id="twice").then(first).then(second).commit()


def named(spans: Any) -> dict[str, Any]:
    """Our spans by name."""
    return {span.name: span for span in spans() if span.name != "inside"}


async def test_a_run_has_a_span_and_each_step_one_below_it(register, spans) -> None:
    app = await register(doubled_twice())
    result = await (await app.get_workflow("twice").create_run()).start({"value": 1})
    assert result.result == {"value": 4}
    found = named(spans)
    assert sorted(found) == ["run twice", "step first", "step second"]
    run = found["run twice"]
    for name in ("step first", "step second"):
        assert found[name].parent.span_id == run.context.span_id
        assert found[name].context.trace_id == run.context.trace_id
    assert run.attributes["flowctl.status"] == "success"
    assert run.start_time <= found["step first"].start_time + 5_000_000


async def test_steps_keep_their_run_as_parent_over_a_sleep_and_in_nested_workflows(register, spans) -> None:
    inner = create_workflow(id="inner").then(create_step(id="deep", execute=double)).commit()
    workflow = create_workflow(id="outer").then(create_step(id="first", execute=double))
    workflow.sleep(5, id="nap").then(inner).then(create_step(id="last", execute=double)).commit()
    app = await register(workflow)
    result = await (await app.get_workflow("outer").create_run()).start({"value": 1})
    assert result.result == {"value": 8}
    run = named(spans)["run outer"]
    steps = [span for span in spans() if span.name.startswith("step ")]
    assert Counter(span.name for span in steps) == {"step first": 1, "step inner/deep": 1, "step last": 1}
    assert {(s.parent.span_id, s.context.trace_id) for s in steps} == {
        (run.context.span_id, run.context.trace_id)
    }
    assert (run.parent is not None) == (app.engine == "inngest")  # the engine's requests name a trace


async def test_a_resumed_run_has_a_span_for_each_leg(register, spans) -> None:
    app = await register(create_workflow(id="talk").then(create_step(id="ask", execute=ask)).commit())
    run = await app.get_workflow("talk").create_run()
    await run.start({})
    await run.resume("ask", {"value": 1})
    legs = [span for span in spans() if span.name == "run talk"]
    assert [(leg.attributes["flowctl.leg"], leg.attributes["flowctl.status"]) for leg in legs] == [
        (1, "suspended"), (2, "success"),
    ]  # fmt: skip
    steps = [span for span in spans() if span.name == "step ask"]
    assert [step.parent.span_id for step in steps] == [leg.context.span_id for leg in legs]


async def test_a_canceled_run_of_this_process_has_a_span_too(spans) -> None:
    begun = asyncio.Event()

    async def wait(ctx: Any) -> None:
        begun.set()
        await ctx.abort_signal.wait()

    workflow = create_workflow(id="slow").then(create_step(id="wait", execute=wait)).commit()
    app = App(workflows=[workflow], storage=MemoryStorage())
    run = await workflow.create_run()
    await run.start_async({})
    await asyncio.wait_for(begun.wait(), 20)
    await run.cancel()
    await app.stop()  # waits for the step in flight
    assert named(spans)["run slow"].attributes["flowctl.status"] == "canceled"


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
        assert span.tracing is None
        assert not trace.get_current_span().is_recording()
    assert not telemetry.is_measuring()


async def test_steps_legs_and_waits_are_measured_without_any_tracing(register, measured) -> None:
    app = await register(doubled_twice())
    await (await app.get_workflow("twice").create_run()).start({"value": 1})
    steps = {labels["step"]: (labels["status"], p.count) for labels, p in measured("flowctl.step.duration")}
    assert steps == {"first": ("success", 1), "second": ("success", 1)}
    (labels, run), *_ = measured("flowctl.run.duration")
    assert (labels, run.count) == ({"workflow": "twice", "status": "success"}, 1)
    (labels, wait), *_ = measured("flowctl.run.wait")
    assert (labels, wait.count, wait.min >= 0) == ({"workflow": "twice"}, 1, True)


async def test_runs_that_wait_are_counted(measured) -> None:
    workflow = create_workflow(id="talk").then(create_step(id="ask", execute=ask)).commit()
    app = App(workflows=[workflow], storage=MemoryStorage())
    await (await workflow.create_run()).start({})
    await workflow.create_run()
    await app.start()
    async with asyncio.timeout(20):
        while not (points := measured("flowctl.runs")):  # noqa: ASYNC110 - readers of metrics poll
            await asyncio.sleep(0.01)
    await app.stop()
    counts = {labels["status"]: point.value for labels, point in points}
    assert counts == {"pending": 1, "running": 0, "waiting": 0, "suspended": 1}


def test_without_the_sdk_nothing_of_opentelemetry_is_imported() -> None:
    script = (
        "import importlib.util as u, sys; find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'opentelemetry.sdk' else find(name, *a)\n"
        "from flowctl import telemetry\n"
        "with telemetry.step_span(telemetry.LegName('w', 'r', 1), 'first', 0): pass\n"
        "print(telemetry.is_measuring(), [m for m in sys.modules if m.startswith('opentelemetry')])"
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False []"
