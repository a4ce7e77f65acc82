"""The workflow in this process, and all of it on an engine of the test's own."""

import asyncio

import inngest
from flowctl.testing import TestApp, run_workflow

from __package__.app import app
from __package__.workflows import Shipment, fulfil_order

SECONDS = 30
PEN: dict[str, inngest.JSON] = {"id": "A-1", "email": "ada@example.com", "items": ["pen", "ink"]}
LAMP: dict[str, inngest.JSON] = {"id": "A-2", "email": "grace@example.com", "items": ["lamp"]}


async def test_every_item_gets_its_parcel() -> None:
    result = await run_workflow(fulfil_order, PEN)
    parcels, invoice = ["parcel with pen", "parcel with ink"], "invoice A-1 for 2 items"
    assert result.result == Shipment(order="A-1", parcels=parcels, invoice=invoice)


async def test_an_import_ships_every_order() -> None:
    async with TestApp(app, engine="inngest") as test, asyncio.timeout(SECONDS):
        assert test.inngest is not None
        await test.inngest.send(inngest.Event(name="orders/imported", data={"orders": [PEN, LAMP]}))
        workflow = test.get_workflow("fulfil-order")
        while (runs := await workflow.list_workflow_runs(status="success")).total < 2:
            await asyncio.sleep(0.05)
    assert {run.snapshot.result["order"] for run in runs.runs} == {"A-1", "A-2"}
