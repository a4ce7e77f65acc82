"""Suggest vacations, let a person select one, have two people sign it off at the same time."""

from typing import Any

from flowctl import StepContext, create_step, create_workflow, step
from pydantic import BaseModel

KNOWN = {
    "beach": ["Algarve", "Okinawa"],
    "city": ["Lisbon", "Kyoto"],
    "mountain": ["Dolomites", "Hakuba"],
}


class Wish(BaseModel):
    vacation_description: str


class Suggestions(BaseModel):
    suggestions: list[str]
    vacation_description: str


class Selection(BaseModel):
    selection: str


class Choice(BaseModel):
    selection: str
    vacation_description: str


class Question(BaseModel):
    question: str


class SignOff(BaseModel):
    approved: bool
    comment: str = ""


class Plan(BaseModel):
    selection: str
    booked: bool
    comments: list[str]


@step(id="suggest")
async def suggest(wish: Wish) -> Suggestions:
    words = wish.vacation_description.lower()
    found = [place for kind, places in KNOWN.items() if kind in words for place in places]
    return Suggestions(
        suggestions=found or [places[0] for places in KNOWN.values()],
        vacation_description=wish.vacation_description,
    )


async def ask_the_traveller(ctx: StepContext[Suggestions, Selection]) -> Choice:
    """Suspended until somebody resumes it with a selection; nothing runs meanwhile."""
    if ctx.resume_data is None:
        await ctx.suspend({"suggestions": ctx.input_data.suggestions})
    return Choice(
        selection=ctx.resume_data.selection,
        vacation_description=ctx.input_data.vacation_description,
    )


human_input = create_step(
    id="human-input",
    input_schema=Suggestions,
    resume_schema=Selection,
    output_schema=Choice,
    execute=ask_the_traveller,
)


async def ask_to_sign_off(ctx: StepContext[Choice, SignOff]) -> SignOff:
    if ctx.resume_data is None:
        await ctx.suspend(Question(question=f"May we book {ctx.input_data.selection}?"))
    return ctx.resume_data


def sign_off_by(who: str) -> Any:
    return create_step(
        id=who,
        input_schema=Choice,
        resume_schema=SignOff,
        suspend_schema=Question,
        output_schema=SignOff,
        execute=ask_to_sign_off,
    )


async def all_have_signed(ctx: StepContext[dict[str, Any]]) -> SignOff:
    answers = [SignOff.model_validate(answer) for answer in ctx.input_data.values()]
    return SignOff(
        approved=all(answer.approved for answer in answers),
        comment="; ".join(answer.comment for answer in answers if answer.comment),
    )


sign_off = (
    create_workflow(id="sign-off", input_schema=Choice, output_schema=SignOff)
    .parallel([sign_off_by("manager"), sign_off_by("finance")])
    .then(create_step(id="all-have-signed", output_schema=SignOff, execute=all_have_signed))
    .commit()
)


async def book_or_not(ctx: StepContext[SignOff]) -> Plan:
    choice = ctx.get_step_result(human_input)
    return Plan(
        selection=choice["selection"],
        booked=ctx.input_data.approved,
        comments=[ctx.input_data.comment] if ctx.input_data.comment else [],
    )


plan_vacation = (
    create_workflow(
        id="plan-vacation",
        description="Suggest, select, sign off, book.",
        input_schema=Wish,
        output_schema=Plan,
    )
    .then(suggest)
    .then(human_input)
    .then(sign_off)
    .then(create_step(id="book", input_schema=SignOff, output_schema=Plan, execute=book_or_not))
    .commit()
)
