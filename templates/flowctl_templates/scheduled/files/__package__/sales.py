"""Where the numbers come from: put your own source here."""

SALES = {"berlin": [120, 80, 45], "tokyo": [300], "lisbon": [60, 75]}


async def sales_of(shop: str) -> list[int]:
    return SALES.get(shop, [])
