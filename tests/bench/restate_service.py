"""The steps of `beside_restate.py` as a Restate service: `restate_service.py PORT`, run with restate-sdk."""

import asyncio
import sys

import hypercorn
import hypercorn.asyncio
import restate

bench = restate.Service("bench")


@bench.handler()
async def steps(ctx: restate.Context, n: int) -> int:
    value = 0
    for number in range(n):

        async def increment(value: int = value) -> int:
            return value + 1

        value = await ctx.run_typed(f"s{number}", increment)
    return value


if __name__ == "__main__":
    config = hypercorn.Config()
    config.bind, config.loglevel = [f"127.0.0.1:{sys.argv[1]}"], "ERROR"
    asyncio.run(hypercorn.asyncio.serve(restate.app([bench]), config))
