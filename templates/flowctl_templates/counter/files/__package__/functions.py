"""Inngest functions that are no workflows."""

import inngest

from __package__.client import client


@client.create_function(
    fn_id="send-welcome-email", trigger=inngest.TriggerEvent(event="user/signed-up")
)
async def send_welcome_email(ctx: inngest.Context) -> str:
    async def send() -> str:
        return f"Welcome, {ctx.event.data['email']}!"

    return await ctx.step.run("send-email", send)


@client.create_function(
    fn_id="process-webhook", trigger=inngest.TriggerEvent(event="webhook/received")
)
async def process_webhook(ctx: inngest.Context) -> dict[str, object]:
    async def process() -> dict[str, object]:
        return {"processed": dict(ctx.event.data)}

    return await ctx.step.run("process", process)
