"""What is noted of runs and steps beside their outputs."""

from __future__ import annotations

from typing import Any

import httpx
import inngest
import pytest
from engine_world import World
from simulated_starts import Simulation

from flowctl.engine.prices import with_cost
from flowctl.engine.run_metadata import combined
from flowctl.engine.turn import Call, Memoize, Note, Reply, effects_of


@pytest.mark.parametrize(
    ("operation", "values", "result"),
    [
        ("merge", {"b": 5, "c": 1}, {"a": 1, "b": 5, "c": 1}),
        ("set", {"c": 1}, {"c": 1}),
        ("delete", {"b": None}, {"a": 1}),
        ("add", {"a": 2, "b": 1, "c": 3}, {"a": 3, "b": "x", "c": 3}),
    ],
)
def test_values_are_combined_with_what_is_there(
    operation: str, values: dict[str, Any], result: dict[str, Any]
) -> None:
    assert combined({"a": 1, "b": "x"}, operation, values) == result


@pytest.mark.parametrize(
    ("values", "cost"),
    [
        ({"request_model": "gpt-5-mini", "input_tokens": 1_000_000, "output_tokens": 2_000_000}, 4.25),
        ({"response_model": "GPT-5-mini-2025-08-07", "input_tokens": 4_000}, 0.001),
        ({"request_model": "gpt-5-mini", "response_model": "gpt-5-nano", "input_tokens": 100}, 0.000005),
        ({"request_model": "gpt-5-mini", "input_tokens": 4_000, "estimated_cost": 7}, 7),
        ({"request_model": "gpt-5-mini", "input_tokens": "many"}, 0),
    ],
)
def test_a_models_usage_is_noted_with_what_it_cost_by_the_list_price_unless_it_says_so_itself(
    values: dict[str, Any], cost: float
) -> None:
    assert with_cost(values)["estimated_cost"] == cost


@pytest.mark.parametrize("model", ["", "gpt-5-mini-of-ours", "gpt"])
def test_usage_of_a_model_that_no_list_price_is_known_of_is_noted_without_a_cost(model: str) -> None:
    assert "estimated_cost" not in with_cost({"request_model": model, "input_tokens": 1, "output_tokens": 1})


def test_an_opcode_brings_notes_of_its_step_and_of_its_run() -> None:
    notes = [
        {"scope": scope, "kind": "inngest.ai", "op": "merge", "values": {"n": 1}} for scope in ("step", "run")
    ]
    op = {"op": "StepRun", "id": "a", "data": 7, "metadata": [*notes, "nonsense"]}
    effects = effects_of(Reply(206, {}, [op]), Call("step", attempt=0, max_attempts=1, now=0))
    assert effects == [
        Note("a", "inngest.ai", "merge", {"n": 1}),
        Note("", "inngest.ai", "merge", {"n": 1}),
        Memoize("a", {"data": 7}, "a"),
    ]
    simulation = Simulation()
    (run,) = simulation.send(1, i=1)
    with simulation.store.transaction():
        for effect in effects:
            simulation.ledger.carry_out(run, effect, 5)
    found = simulation.ledger.metadata.of(run.run_id)
    assert {id: [note["scope"] for note in kept] for id, kept in found.items()} == {
        "": ["run"],
        "a": ["step"],
    }


@pytest.fixture
async def run_id(world: World) -> str:
    """A run with a step that its author called `rate`."""

    async def rated() -> int:
        return 1

    @world.function("f")
    async def function(ctx: inngest.Context) -> None:
        await ctx.step.run("rate", rated)

    await world.start()
    return (await world.ended(await world.send("t/f")))["run_id"]


async def note(world: World, run_id: str, target: Any, **entry: Any) -> httpx.Response:
    body = {"target": target, "metadata": [{"op": "merge", "values": {}, **entry}]}
    return await world.http.post(f"{world.engine.url}/v1/runs/{run_id}/metadata", json=body)


async def test_a_score_is_shown_where_it_was_given(world: World, run_id: str) -> None:
    for target, value in (({}, 1), ({"step_id": "rate"}, 2)):
        answer = await note(world, run_id, target, kind="inngest.score", values={"s": value})
        assert answer.status_code == 200
    query = """query($id: String!) { run(runID: $id) { trace {
        metadata { scope kind values } childrenSpans { metadata { scope kind values } } } } }"""
    asked = {"query": query, "variables": {"id": run_id}}
    trace = (await world.http.post(f"{world.engine.url}/v0/gql", json=asked)).json()["data"]["run"]["trace"]
    assert trace["metadata"] == [{"scope": "run", "kind": "inngest.score", "values": {"s": 1}}]
    (step,) = trace["childrenSpans"]
    assert step["metadata"] == [{"scope": "step", "kind": "inngest.score", "values": {"s": 2}}]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"kind": "inngest.mine"}, "'inngest.mine' is reserved"),
        ({"kind": ""}, "a kind of 1 to 128 characters"),
        ({"kind": "userland.a", "op": "sort"}, "'sort' is no operation"),
        ({"kind": "userland.a", "values": 1}, "an object of values"),
        ({"kind": "userland.a", "values": {"x": "x" * 65_536}}, "exceeds 65536 bytes"),
    ],
)
async def test_what_is_no_metadata_is_refused_with_the_reason(
    world: World, run_id: str, entry: dict[str, Any], words: str
) -> None:
    answer = await note(world, run_id, {}, **entry)
    assert answer.status_code == 400
    assert words in answer.json()["error"]


async def test_metadata_of_a_run_that_is_not_there_is_refused(world: World) -> None:
    answer = await note(world, "01HZZZZZZZZZZZZZZZZZZZZZZZ", {}, kind="userland.a")
    assert answer.status_code == 404
