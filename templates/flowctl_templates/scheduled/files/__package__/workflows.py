"""A report every working day, and a refresh that is kept from running too often."""

from datetime import timedelta

import inngest
from flowctl import StepContext, init, step
from pydantic import BaseModel

from __package__.client import client
from __package__.sales import SALES, sales_of

flow = init(client)


class Shops(BaseModel):
    shops: list[str]


class Shop(BaseModel):
    shop: str


class Sales(BaseModel):
    shop: str
    orders: int
    total: int


class Report(BaseModel):
    title: str
    lines: list[str]
    total: int


@step(id="each-shop")
async def each_shop(asked: Shops) -> list[Shop]:
    return [Shop(shop=shop) for shop in asked.shops]


@step(id="fetch-sales", retries=3)
async def fetch_sales(asked: Shop) -> Sales:
    """Tried again three times when the source does not answer."""
    sales = await sales_of(asked.shop)
    return Sales(shop=asked.shop, orders=len(sales), total=sum(sales))


async def write_report(ctx: StepContext[list[Sales]]) -> Report:
    return Report(
        title="Sales",
        lines=[f"{sales.shop}: {sales.total} in {sales.orders} orders" for sales in ctx.input_data],
        total=sum(sales.total for sales in ctx.input_data),
    )


daily_report = (
    flow.create_workflow(
        id="daily-report",
        description="Every working day at seven, in Berlin's time.",
        input_schema=Shops,
        output_schema=Report,
        cron="TZ=Europe/Berlin 0 7 * * 1-5",
        cron_input={"shops": sorted(SALES)},
        retry_config={"attempts": 2, "delay": 1000},
    )
    .then(each_shop)
    .foreach(fetch_sales, concurrency=4)
    .then(
        flow.create_step(
            id="write-report", input_schema=list[Sales], output_schema=Report, execute=write_report
        )
    )
    .commit()
)

refresh_shop = (
    flow.create_workflow(
        id="refresh-shop",
        description="One at a time for a shop, ten a minute in all.",
        input_schema=Shop,
        output_schema=Sales,
        concurrency=[inngest.Concurrency(limit=1, key="event.data.inputData.shop")],
        throttle=inngest.Throttle(limit=10, period=timedelta(minutes=1)),
    )
    .sleep(timedelta(seconds=5), id="let-bookings-settle")
    .then(fetch_sales)
    .commit()
)
