"""What calls of models cost by the providers' list prices. Pure; the prices are data beside this file.

Called by `run_metadata`. An estimate: discounts, caches and tiers are not in it, and a model that is not
listed has no price rather than that of a similar one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

import orjson

COST = "estimated_cost"
_SNAPSHOT = re.compile(r"(-(\d{2,}|latest|preview))+$")
"""What providers append to a model's name to say which edition of it is meant."""


def with_cost(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The values of `inngest.ai` metadata with the cost in US dollars, if they lack it and it is known."""
    if values.get(COST) is not None:
        return values
    model = str(values.get("response_model") or values.get("request_model") or "")
    cost = estimated(model, values.get("input_tokens"), values.get("output_tokens"))
    return values if cost is None else {**values, COST: cost}


def estimated(model: str, tokens_in: Any, tokens_out: Any) -> float | None:
    """US dollars for a call, to the millionth; None for a model without a known price."""
    price = _price(model.lower())
    if price is None:
        return None
    counts = (n if isinstance(n, int | float) else 0 for n in (tokens_in, tokens_out))
    return round(sum(count * each for count, each in zip(counts, price, strict=True)) / 1_000_000, 6)


def _price(model: str) -> tuple[float, float] | None:
    return _prices().get(model) or _prices().get(_SNAPSHOT.sub("", model))


@cache
def _prices() -> Mapping[str, tuple[float, float]]:
    """Dollars per million tokens, in and out, by lower-case name; read when the first model is asked for."""
    text = resources.files("flowctl.engine").joinpath("model_prices.json").read_bytes()
    return {
        model: (price_in, price_out) for model, (price_in, price_out) in orjson.loads(text)["models"].items()
    }
