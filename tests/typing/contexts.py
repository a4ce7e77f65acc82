"""The types of a step's context; checked by pyright, never run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, assert_never, assert_type

from pydantic import BaseModel

from flowctl import App, RequestContext, StepContext, create_step


class Question(BaseModel):
    text: str


class Answer(BaseModel):
    approved: bool


class Counter(BaseModel):
    value: int


@dataclass
class State:
    count: int


async def every_argument(ctx: StepContext[Counter, Answer, State, Question]) -> Counter:
    assert_type(ctx.input_data, Counter)
    assert_type(ctx.resume_data, Answer | None)
    assert_type(ctx.suspend_data, Question | None)
    assert_type(ctx.state, State)
    assert_type(ctx.request_context, RequestContext)
    assert_type(ctx.request_context.get("key"), Any)
    assert_type(ctx.run_id, str)
    assert_type(ctx.workflow_id, str)
    assert_type(ctx.resource_id, str | None)
    assert_type(ctx.retry_count, int)
    assert_type(ctx.iteration_count, int)
    assert_type(ctx.abort_signal.is_set(), bool)
    assert_type(ctx.app, App | None)
    assert_type(ctx.logger, logging.Logger | logging.LoggerAdapter[Any])
    assert_type(ctx.engine.name, str)
    assert_type(ctx.idempotency_key, str)
    assert_type(ctx.writer.write({"token": "a"}), None)
    await ctx.abort_signal.wait()
    return ctx.input_data


async def defaults(ctx: StepContext) -> None:
    assert_type(ctx, StepContext[Any, Any, Any, Any])
    assert_type(ctx.input_data, Any)
    assert_type(ctx.resume_data, Any | None)


async def narrowed_by_suspend(ctx: StepContext[Counter, Answer]) -> bool:
    if ctx.resume_data is None:
        await ctx.suspend({"text": "May I?"}, resume_label="ask")
    assert_type(ctx.resume_data, Answer)
    return ctx.resume_data.approved


async def suspend_returned(ctx: StepContext[Counter, Answer]) -> bool:
    if ctx.resume_data is None:
        return await ctx.suspend()
    return ctx.resume_data.approved


async def bailed(ctx: StepContext[int | None]) -> int:
    if ctx.input_data is None:
        await ctx.bail({"ended": "early"})
    return ctx.input_data


async def code_after_a_suspend_is_not_reached(ctx: StepContext[int]) -> int:
    await ctx.suspend()
    assert_never(ctx.input_data)


asking = create_step(
    id="ask",
    input_schema=Counter,
    output_schema=Counter,
    resume_schema=Answer,
    state_schema=State,
    suspend_schema=Question,
    execute=every_argument,
)


def context_values(context: RequestContext) -> Mapping[str, Any]:
    assert_type("key" in context, bool)
    assert_type(len(context), int)
    return context.to_json()
