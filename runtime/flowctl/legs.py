"""How far one leg of a run goes on Inngest."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LegLimits:
    """When a leg on Inngest ends and the run goes on in a new one, and when a request is answered.

    `steps` and `size` (bytes) are of what the engine remembers of a leg: each request carries all of it, and
    Inngest allows 1,000 steps and 32 MB. `seconds` is for one request: platforms end those that take longer.
    """

    steps: int = 500
    size: int = 4 * 2**20
    seconds: float = 50.0
