"""Runs, one for each thing a run can do, and what they tell: the table of `test_events`.

An event is written `<type without workflow-> <id> <status>`. What only watchers are told, `step-finish` after
each `step-result`, is left out here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from flowctl import Run, create_workflow
from tests.workflows.making import Ran

Action = Callable[[Run[Any]], Awaitable[Any]]


@dataclass(frozen=True)
class Story:
    """A workflow, what is done with a run of it, and the events, a line a leg."""

    workflow: Any
    legs: list[str]
    input: Any = 1
    then: tuple[Action, ...] = ()
    begin: Action | None = None
    at: tuple[str, Action] | None = None
    """What is done when an event of that type is seen."""

    @property
    def told(self) -> list[str]:
        """The events of all legs."""
        return [event.strip() for leg in self.legs for event in leg.split(",")]


def same(id: str, **options: Any) -> Any:
    return Ran().step(id, **options)


def raising(id: str, *, times: int = 99, **options: Any) -> Any:
    def work(ctx: Any) -> Any:
        if ctx.retry_count < times:
            raise ValueError("no")
        return ctx.input_data

    return Ran().step(id, work, **options)


def asking(id: str) -> Any:
    async def ask(ctx: Any) -> Any:
        return ctx.input_data if ctx.resume_data else await ctx.suspend({"how": "many"}, resume_label=id)

    return Ran().step(id, ask)


def bailing(id: str) -> Any:
    return Ran().step(id, lambda ctx: ctx.bail("early"))


def aborting(id: str) -> Any:
    return Ran().step(id, lambda ctx: ctx.abort())


def writing(id: str) -> Any:
    def write(ctx: Any) -> None:
        ctx.writer.write({"token": "a"})
        ctx.writer.custom({"type": "data-progress", "data": 1})

    return Ran().step(id, write)


def waiting(id: str) -> Any:
    async def wait(ctx: Any) -> None:
        await asyncio.wait_for(ctx.abort_signal.wait(), 30)

    return Ran().step(id, wait)


def inner(*steps: Any, id: str = "inner") -> Any:
    made = create_workflow(id=id)
    for step in steps:
        made.then(step)
    return made.commit()


def w(**options: Any) -> Any:
    return create_workflow(id="w", **options)


def answer(step: Any = None, **options: Any) -> Action:
    return lambda run: run.resume(step, {"go": True}, **options)


def travel(step: Any, **options: Any) -> Action:
    return lambda run: run.time_travel(step, **options)


def cancel(run: Run[Any]) -> Awaitable[None]:
    return run.cancel()


def ran(*ids: str) -> str:
    """Steps that began and succeeded, one after the other."""
    return ", ".join(f"step-start {id} running, step-result {id} success" for id in ids)


def whole(middle: str, end: str = "finish success") -> str:
    return f"start, {middle}, {end}"


def arms(*ids: str) -> str:
    """Steps that began together and then succeeded, in their order."""
    starts = [f"step-start {id} running" for id in ids]
    return ", ".join([*starts, *(f"step-result {id} success" for id in ids)])


ONCE = 10
TRUE = lambda ctx: True  # noqa: E731 - as users write conditions
FALSE = lambda ctx: False  # noqa: E731


async def interrupted(run: Run[Any]) -> None:
    """Goes on with a run whose first step was done when its process died."""
    done = {"status": "success", "payload": 1, "output": 1}
    context = {"input": 1, "a": done, "b": {"status": "running", "payload": 1}}
    await run.app.storage.save_snapshot("w", run.run_id, {"status": "running", "context": context})
    await run.restart()


ASKED = "step-start ask running, step-suspended ask suspended"
STORIES: dict[str, Callable[[], Story]] = {
    "then": lambda: Story(w().then(same("a")).then(same("b")), [whole(ran("a", "b"))]),
    "map": lambda: Story(w().map(lambda ctx: 2).then(same("a")), [whole(ran("mapping_w_0", "a"))]),
    "writer": lambda: Story(
        w().then(writing("a")),
        [whole("step-start a running, step-output a, data-progress, step-result a success")],
    ),
    "failure": lambda: Story(
        w().then(raising("a")).then(same("b")),
        [whole("step-start a running, step-result a failed", "finish failed")],
    ),
    "retries": lambda: Story(w().then(raising("a", times=2, retries=2)), [whole(ran("a"))]),
    "nested workflows at once": lambda: Story(
        w().parallel([inner(same("x"), same("y"), id="a"), inner(same("x"), same("y"), id="b")]),
        [
            whole(
                f"step-start a running, step-start b running, {arms('a.x', 'b.x')}, {arms('a.y', 'b.y')}, "
                "step-result a success, step-result b success",
            )
        ],
    ),
    "retries in vain": lambda: Story(
        w().then(raising("a", retries=2)),
        [whole("step-start a running, step-result a failed", "finish failed")],
    ),
    "parallel": lambda: Story(w().parallel([same("a"), same("b"), same("c")]), [whole(arms("a", "b", "c"))]),
    "parallel with a failure": lambda: Story(
        w().parallel([raising("a"), same("b")]),
        [
            whole(
                "step-start a running, step-start b running, step-result a failed, step-result b success",
                "finish failed",
            )
        ],
    ),
    "branch": lambda: Story(
        w().branch([(TRUE, same("a")), (FALSE, same("b")), (TRUE, same("c"))]), [whole(arms("a", "c"))]
    ),
    "branch that takes no arm": lambda: Story(
        w().branch([(FALSE, same("a"))]).then(same("b")), [whole(ran("b"))]
    ),
    "dowhile": lambda: Story(
        w().dowhile(same("a"), lambda ctx: ctx.iteration_count < 3), [whole(ran("a", "a", "a"))]
    ),
    "dountil": lambda: Story(
        w().dountil(same("a"), lambda ctx: ctx.iteration_count >= 2), [whole(ran("a", "a"))]
    ),
    "foreach": lambda: Story(
        w().foreach(same("a")),
        [
            whole(
                "step-start a running, step-progress a success, step-progress a success, "
                "step-result a success"
            )
        ],
        input=[1, 2],
    ),
    "foreach over nothing": lambda: Story(w().foreach(same("a")), [whole(ran("a"))], input=[]),
    "foreach with a failure": lambda: Story(
        w().foreach(raising("a")),
        [whole("step-start a running, step-progress a failed, step-result a failed", "finish failed")],
        input=[1, 2],
    ),
    "sleep": lambda: Story(
        w().sleep(1, id="nap").then(same("a")),
        [whole(f"step-waiting nap waiting, step-result nap success, {ran('a')}")],
    ),
    "sleep_until": lambda: Story(
        w().sleep_until(lambda ctx: None, id="nap"),
        [whole("step-waiting nap waiting, step-result nap success")],
    ),
    "nested": lambda: Story(
        w().then(inner(same("a"), same("b"))),
        [whole(f"step-start inner running, {ran('inner.a', 'inner.b')}, step-result inner success")],
    ),
    "nested twice": lambda: Story(
        w().then(inner(inner(same("a"), id="deep"))),
        [
            whole(
                "step-start inner running, step-start inner.deep running, "
                f"{ran('inner.deep.a')}, step-result inner.deep success, step-result inner success"
            )
        ],
    ),
    "nested failure": lambda: Story(
        w().then(inner(raising("a"))),
        [
            whole(
                "step-start inner running, step-start inner.a running, step-result inner.a failed, "
                "step-result inner failed",
                "finish failed",
            )
        ],
    ),
    "suspend and resume": lambda: Story(
        w().then(same("a")).then(asking("ask")).then(same("b")),
        [whole(f"{ran('a')}, {ASKED}", "finish suspended"), whole(ran("ask", "b"))],
        then=(answer(),),
    ),
    "suspend and resume in a parallel": lambda: Story(
        w().parallel([asking("ask"), same("a"), asking("other")]),
        [
            whole(
                "step-start ask running, step-start a running, step-start other running, "
                "step-suspended ask suspended, step-result a success, step-suspended other suspended",
                "finish suspended",
            ),
            whole(ran("other"), "finish suspended"),
            whole(ran("ask")),
        ],
        then=(answer("other"), answer(label="ask")),
    ),
    "suspend and resume in a branch": lambda: Story(
        w().branch([(TRUE, asking("ask")), (FALSE, same("a"))]).then(same("b")),
        [whole(ASKED, "finish suspended"), whole(ran("ask", "b"))],
        then=(answer(),),
    ),
    "suspend and resume in a loop": lambda: Story(
        w().dountil(asking("ask"), lambda ctx: ctx.iteration_count >= 2),
        [
            whole(ASKED, "finish suspended"),
            whole(f"{ran('ask')}, {ASKED}", "finish suspended"),
            whole(ran("ask")),
        ],
        then=(answer(), answer()),
    ),
    "suspend and resume in a foreach": lambda: Story(
        w().foreach(asking("ask"), concurrency=2),
        [
            whole(
                "step-start ask running, step-progress ask suspended, step-progress ask suspended, "
                "step-suspended ask suspended",
                "finish suspended",
            ),
            whole(
                "step-start ask running, step-progress ask success, step-suspended ask suspended",
                "finish suspended",
            ),
            whole("step-start ask running, step-progress ask success, step-result ask success"),
        ],
        input=[1, 2],
        then=(answer(for_each_index=1), answer()),
    ),
    "suspend and resume in a nested workflow": lambda: Story(
        w().then(inner(same("a"), asking("ask"), same("b"))),
        [
            whole(
                f"step-start inner running, {ran('inner.a')}, step-start inner.ask running, "
                "step-suspended inner.ask suspended, step-suspended inner suspended",
                "finish suspended",
            ),
            whole(f"step-start inner running, {ran('inner.ask', 'inner.b')}, step-result inner success"),
        ],
        then=(answer(["inner", "ask"]),),
    ),
    "bail": lambda: Story(w().then(bailing("a")).then(same("b")), [whole(ran("a"))]),
    "bail in a nested workflow": lambda: Story(
        w().then(inner(bailing("a"), same("b"))).then(same("c")),
        [whole(f"step-start inner running, {ran('inner.a')}, step-result inner success, {ran('c')}")],
    ),
    "abort": lambda: Story(w().then(aborting("a")).then(same("b")), [whole(ran("a"), "canceled")]),
    "cancel": lambda: Story(
        w().then(waiting("a")).then(same("b")),
        ["start, step-start a running, canceled"],
        at=("workflow-step-start", cancel),
    ),
    "cancel of what is suspended": lambda: Story(
        w().then(asking("ask")),
        [whole(ASKED, "finish suspended"), "canceled"],
        then=(cancel,),
    ),
    "per step": lambda: Story(
        w().then(same("a")).then(same("b")),
        [whole(ran("a"), "paused, finish paused"), whole(ran("b"))],
        begin=lambda run: run.start(1, per_step=True),
        then=(lambda run: run.resume(),),
    ),
    "time travel": lambda: Story(
        w().then(same("a")).then(same("b")).then(same("c")),
        [whole(ran("a", "b", "c")), whole(ran("b", "c"))],
        then=(travel("b"),),
    ),
    "time travel per step": lambda: Story(
        w().then(same("a")).then(same("b")),
        [whole(ran("a"), "paused, finish paused")],
        begin=travel("a", input_data=1, per_step=True),
    ),
    "time travel into a nested workflow": lambda: Story(
        w().then(inner(same("a"), same("b"))),
        [
            whole(f"step-start inner running, {ran('inner.a', 'inner.b')}, step-result inner success"),
            whole(f"step-start inner running, {ran('inner.b')}, step-result inner success"),
        ],
        then=(travel("inner.b"),),
    ),
    "restart": lambda: Story(w().then(same("a")).then(same("b")), [whole(ran("b"))], begin=interrupted),
}
