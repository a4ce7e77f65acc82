"""Which Inngest client an app uses that was given none."""

from __future__ import annotations

import httpx
import inngest
import pytest

from flowctl import App, DefinitionError, SQLiteStorage, create_step, create_workflow, init

client = inngest.Inngest(app_id="shop", is_production=False)
other = inngest.Inngest(app_id="bank", is_production=False)


@client.create_function(fn_id="ship", trigger=inngest.TriggerEvent(event="paid"))
async def ship(ctx: inngest.Context) -> None: ...


@other.create_function(fn_id="pay", trigger=inngest.TriggerEvent(event="ordered"))
async def pay(ctx: inngest.Context) -> None: ...


def workflow_of(bound: inngest.Inngest):
    return init(bound).create_workflow(id="w").then(create_step(id="s", execute=lambda ctx: 1))


def test_it_is_that_of_its_workflows_or_of_the_module_that_its_functions_are_written_in() -> None:
    assert App(workflows=[workflow_of(other)]).inngest is other
    assert App(functions=[ship]).inngest is client
    assert App(workflows=[workflow_of(client)], functions=[ship]).inngest is client
    assert App(functions=[ship, pay], inngest=other).inngest is other


def test_two_different_ones_are_refused() -> None:
    with pytest.raises(DefinitionError, match="different Inngest clients"):
        App(workflows=[workflow_of(other)], functions=[ship])
    with pytest.raises(DefinitionError, match="different Inngest clients"):
        App(functions=[ship, pay])


async def test_functions_whose_client_is_out_of_sight_are_not_served_and_the_endpoint_says_so() -> None:
    hidden = inngest.Inngest(app_id="hidden", is_production=False)
    made = hidden.create_function(fn_id="f", trigger=inngest.TriggerEvent(event="e"))(ship._handler)
    app = App(functions=[made], storage=SQLiteStorage(":memory:"))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app.asgi), base_url="http://localhost"
    ) as http:
        answer = await http.get("/api/inngest")
    assert (app.inngest, answer.status_code) == (None, 404)
    assert "pass their client to App(inngest=…)" in answer.json()["error"]


def test_options_that_inngest_does_not_take_are_refused_by_the_workflows_name() -> None:
    workflow = create_workflow(id="w", concurrency=2).then(create_step(id="s", execute=lambda ctx: 1))
    with pytest.raises(DefinitionError, match=r"Workflow 'w' .*concurrency: Input should be a valid list"):
        App(workflows=[workflow], inngest=client).inngest_functions()
