"""What an operator reads in the log of an engine."""

from __future__ import annotations

import asyncio
import logging
import sys

from engine_world import until

from flowctl.engine.logs import Repeats


def record(message: str) -> logging.LogRecord:
    return logging.LogRecord("flowctl.engine", logging.ERROR, "", 0, "%s", (message,), None)


def test_what_repeats_is_told_once_in_a_while_with_the_number_of_times():
    time = [0.0]
    repeats = Repeats(60, lambda: time[0])
    told = list[str]()
    for time[0], message in [(0, "a"), (1, "a"), (2, "b"), (59, "a"), (61, "a"), (62, "a")]:
        if repeats.filter(one := record(message)):
            told.append(one.getMessage())
    assert told == ["a", "b", "a (2 times more before this)"]


def test_messages_that_never_come_again_are_not_remembered_for_ever():
    repeats = Repeats(60, lambda: 0.0)
    assert all(repeats.filter(record(str(number))) for number in range(3_000))
    assert len(repeats._told) <= 1_000


async def test_an_app_that_cannot_be_reached_is_told_once_and_when_it_is_there_again(world, caplog):
    caplog.set_level(logging.INFO, "flowctl.engine")

    @world.function("f")
    async def f(_: object) -> str:
        return "done"

    async def is_told() -> bool:
        return "cannot be reached, and its runs wait" in caplog.text

    await world.start()
    assert "The app 't' at" in caplog.text
    assert "is registered, functions: 1." in caplog.text
    await world.register_at(1)
    event_id = await world.send("t/f")
    await until(is_told)
    await world.register_at(world.listener.getsockname()[1])
    assert (await world.ended(event_id))["status"] == "Completed"
    assert caplog.text.count("cannot be reached") == 1


async def test_each_line_has_its_time_and_level():
    engine = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "flowctl.engine", "--port", "0", "-u", "http://127.0.0.1:1/api/inngest",
        stderr=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert engine.stderr
    line = await asyncio.wait_for(engine.stderr.readline(), 20)
    engine.terminate()
    await engine.communicate()
    date, _, level, rest = line.decode().split(" ", 3)
    assert (len(date), level, "is not synced" in rest) == (10, "INFO", True)
