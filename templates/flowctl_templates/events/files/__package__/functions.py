"""Inngest functions: one import fans out to an event an order, one order to a receipt and a workflow."""

from typing import Any

import inngest

from __package__.client import client


@client.create_function(
    fn_id="import-orders", trigger=inngest.TriggerEvent(event="orders/imported")
)
async def import_orders(ctx: inngest.Context) -> int:
    """Fan out: an event for every order, sent in one step."""
    orders: Any = ctx.event.data["orders"]
    events = [inngest.Event(name="order/placed", data=order) for order in orders]
    return len(await ctx.step.send_event("fan-out", events))


@client.create_function(fn_id="send-receipt", trigger=inngest.TriggerEvent(event="order/placed"))
async def send_receipt(ctx: inngest.Context) -> str:
    async def send() -> str:
        return f"Receipt for {ctx.event.data['id']} to {ctx.event.data['email']}"

    return await ctx.step.run("send", send)


@client.create_function(
    fn_id="start-fulfilment", trigger=inngest.TriggerEvent(event="order/placed")
)
async def start_fulfilment(ctx: inngest.Context) -> None:
    """A workflow is begun by its own event; its run has a record of every step."""
    data: dict[str, inngest.JSON] = {"inputData": dict(ctx.event.data)}
    await ctx.step.send_event("start", inngest.Event(name="workflow.fulfil-order", data=data))
