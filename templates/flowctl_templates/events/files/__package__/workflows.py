"""What an order takes: pack every item, write the invoice at the same time, then ship."""

from typing import Any

from flowctl import StepContext, init, step
from pydantic import BaseModel

from __package__.client import client

flow = init(client)


class Order(BaseModel):
    id: str
    email: str
    items: list[str]


class Shipment(BaseModel):
    order: str
    parcels: list[str]
    invoice: str


@step(id="items")
async def items(order: Order) -> list[str]:
    return order.items


@step(id="pack-item", retries=2)
async def pack_item(item: str) -> str:
    return f"parcel with {item}"


pack = (
    flow.create_workflow(id="pack", input_schema=Order, output_schema=list[str])
    .then(items)
    .foreach(pack_item, concurrency=5)
    .commit()
)


@step(id="write-invoice")
async def write_invoice(order: Order) -> str:
    return f"invoice {order.id} for {len(order.items)} items"


async def ship_order(ctx: StepContext[dict[str, Any]]) -> Shipment:
    done = ctx.input_data
    order = Order.model_validate(ctx.get_init_data())
    return Shipment(order=order.id, parcels=done["pack"], invoice=done["write-invoice"])


fulfil_order = (
    flow.create_workflow(
        id="fulfil-order",
        description="Pack, invoice, ship.",
        input_schema=Order,
        output_schema=Shipment,
    )
    .parallel([pack, write_invoice])
    .then(flow.create_step(id="ship", output_schema=Shipment, execute=ship_order))
    .commit()
)
