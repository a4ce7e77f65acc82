"""Kill processes at durable operations and see what comes of the run.

    python -m tests.crashes local|worker|engine [--dsn DSN | --postgres] [--sample N] [--seed N] [--deaths N]
        [--leg N] [--apart] [--crowded]

`local` kills the process of the local engine, `worker` an Inngest function's, `engine` the embedded engine.
With `--apart` nested workflows are functions of their own, and their ends take turns; with `--crowded` each
request reports its steps as in a crowd.
Runs are kept in SQLite, at `--dsn`, or (`--postgres`) on a PostgreSQL server of its own. Without `--sample`
every point is tried. Each life is a fork of this process, which stays single-threaded. Prints what went
wrong; the exit code is 1 then.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import random
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from flowctl.runners import engine_api
from tests.crashes.lives import Death, Log, inngest_life, local_life
from tests.postgres_server import postgres_server

LIFE_SECONDS = 60


@dataclass(frozen=True)
class Story:
    """The deaths of one run, one life after the other; the last life is not cut short."""

    deaths: tuple[Death, ...]

    def __str__(self) -> str:
        return ", then ".join(map(str, self.deaths)) or "no death"


class Stage:
    """Where stories are played: an engine, a kind of database."""

    def __init__(self, kind: str, folder: Path, dsn: str | None, **life: Any) -> None:
        self.kind, self.folder, self.dsn, self.life = kind, folder, dsn, life
        self.count = 0
        self.port, self.engine_port = free_port(), free_port()
        self.engine: subprocess.Popen[bytes] | None = None

    def play(self, story: Story) -> list[list[str]]:
        """The log of a run that lived through these deaths."""
        self.count += 1
        home = self.folder / str(self.count)
        home.mkdir()
        log = Log(home / "log")
        where = f"crash_{os.getpid()}_{self.count}@{self.dsn}" if self.dsn else str(home / "runs.db")
        if self.kind == "local":
            self._lives(story, log, partial(local_life, where, log))
            return log.lines()
        self._start_engine(home)
        life = partial(
            inngest_life,
            where,
            log,
            engine=f"http://127.0.0.1:{self.engine_port}",
            port=self.port,
            **self.life,
        )
        try:
            if self.kind == "worker":
                self._lives(story, log, life)
            else:
                self._lives_of_engine(story, log, life, home)
        finally:
            self._stop_engine()
        return log.lines()

    def _lives(self, story: Story, log: Log, life: Callable[..., Any]) -> None:
        for number, death in enumerate([*story.deaths, None]):
            child = fork(partial(life, death, first=number == 0))
            if not ends(child, time.monotonic() + LIFE_SECONDS):
                end(child)
                log.add("hung", str(death))
                return
            if death is not None and log.lines()[-1][0] == "writes":
                return  # it ended before its death came

    def _lives_of_engine(self, story: Story, log: Log, life: Callable[..., Any], home: Path) -> None:
        assert self.engine is not None
        death = replace(story.deaths[0], victim=self.engine.pid) if story.deaths else None
        child, deadline = fork(partial(life, death, first=True)), time.monotonic() + LIFE_SECONDS
        while not ends(child, time.monotonic() + 0.02):
            if self.engine.poll() is not None:
                self._start_engine(home)
            if time.monotonic() > deadline:
                end(child)
                log.add("hung", str(death))
                return

    def _start_engine(self, home: Path) -> None:
        command = [
            sys.executable, "-m", "flowctl.engine", "--port", str(self.engine_port), "--no-poll",
            "--db", home / "engine.db",
        ]  # fmt: skip
        self._stop_engine()
        self.engine = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self.engine.stdout is not None
        if not select.select([self.engine.stdout], [], [], LIFE_SECONDS)[0]:
            raise TimeoutError("the engine did not start")
        line = self.engine.stdout.readline()
        assert b"ready" in line, line

    def _stop_engine(self) -> None:
        if self.engine is not None:
            self.engine.kill()
            self.engine.wait()
            assert self.engine.stdout is not None
            self.engine.stdout.close()
            self.engine = None


def fork(life: Callable[[], Any]) -> int:
    """Live in a child; its id."""
    child = os.fork()
    if child:
        return child
    try:
        asyncio.run(life())
    except BaseException:  # noqa: BLE001 - the child ends here, whatever it was
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def ends(child: int, deadline: float) -> bool:
    """Whether a child ended by then."""
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.002)
    return True


def end(child: int) -> None:
    """Kill a child that hangs."""
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def faults(log: Sequence[list[str]], expected: str) -> Iterator[str]:
    """What went wrong in a run, by its log."""
    finished: set[str] = set()
    for what, word, *_ in log:
        if what == "finished":
            finished.add(word)
        elif what == "begin" and word in finished:
            yield f"{word} was finished and ran again"
        elif what == "hung":
            yield "the run hung"
    ended = [line for line in log if line[0] == "ended"]
    begun = any(line[0] == "begin" for line in log)
    if not ended:
        yield "the run was lost"
    elif ended[-1][1] in {"missing", "pending"}:
        if begun:
            yield f"the run had begun and is {ended[-1][1]}"
    elif ended[-1][2] != expected:
        yield f"the run came to {ended[-1]}, not to {expected}"


def stories(writes: int, *, sample: int | None, deaths: int, seed: int) -> list[Story]:
    """Every point to die at, or a sample of them; with more than one death at random."""
    points = [Death(n, after) for n in range(1, writes + 1) for after in (False, True)]
    chance = random.Random(seed)
    if deaths > 1:
        return [Story(tuple(chance.choices(points, k=deaths))) for _ in range(sample or len(points))]
    chosen = points if sample is None else chance.sample(points, min(sample, len(points)))
    return [Story((point,)) for point in chosen]


def main() -> int:
    parser = argparse.ArgumentParser("tests.crashes", description=__doc__)
    parser.add_argument("kind", choices=["local", "worker", "engine"])
    parser.add_argument("--dsn")
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--sample", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--deaths", type=int, default=1)
    parser.add_argument("--leg", type=int, default=500, help="how many steps a leg on Inngest has")
    parser.add_argument("--apart", action="store_true")
    parser.add_argument("--crowded", action="store_true")
    given = parser.parse_args()
    if given.crowded:
        engine_api.CROWD = 1
    logging.getLogger("flowctl").setLevel(logging.CRITICAL)  # a step of the story fails on purpose
    bad = 0
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="crashes-"))
        dsn = stack.enter_context(postgres_server()) if given.postgres else given.dsn
        stage = Stage(given.kind, Path(folder), dsn, leg=given.leg, apart=given.apart)
        undisturbed = stage.play(Story(()))
        expected = next(line[2] for line in undisturbed if line[:2] == ["ended", "success"])
        writes = int(undisturbed[-1][1])
        told = stories(writes, sample=given.sample, deaths=given.deaths, seed=given.seed)
        for story in told:
            log = stage.play(story)
            for fault in faults(log, expected):
                bad += 1
                print(f"{story}: {fault}", flush=True)
    print(f"{len(told)} stories of up to {writes} writes, {bad} faults")
    return 1 if bad else 0


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
