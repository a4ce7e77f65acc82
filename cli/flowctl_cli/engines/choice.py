"""Which engine `flowctl dev` uses, decided from what was asked and what the machine has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flowctl.errors import ConfigurationError, EngineError

Kind = Literal["embedded", "docker", "binary", "url"]
NAMES = ("auto", "embedded", "docker", "binary")


@dataclass(frozen=True, slots=True)
class DockerHost:
    """A reachable Docker daemon, and the address by which its containers reach this machine (Linux)."""

    url: str
    bridge: str | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is on this machine."""

    docker: DockerHost | None
    docker_problem: str
    binary: str | None


@dataclass(frozen=True, slots=True)
class Choice:
    """An engine, and in a few words why this one."""

    kind: Kind
    why: str
    url: str | None = None


def is_url(asked: str) -> bool:
    """Whether an engine is named by its address."""
    return asked.startswith(("http://", "https://"))


def check(asked: str, where: str) -> str:
    """The name of an engine as it was asked for; raises ConfigurationError."""
    if asked in NAMES or is_url(asked):
        return asked
    raise ConfigurationError(f"{where} {asked!r} is none of {', '.join(NAMES)} or a URL.")


def choose(asked: str, machine: Machine) -> Choice:
    """Decide; raises EngineError when what was asked for is not there."""
    match asked:
        case "embedded":
            return Choice("embedded", "embedded, kept in .flowctl/engine.db")
        case "docker":
            if machine.docker is None:
                raise EngineError(f"{machine.docker_problem} Or use --engine embedded.")
            return Choice("docker", "in Docker, as asked")
        case "binary":
            if machine.binary is None:
                raise EngineError(
                    "There is no `inngest` on PATH: install it (npm install -g inngest-cli), "
                    "or use --engine embedded."
                )
            return Choice("binary", f"{machine.binary}, as asked")
        case "auto":
            return _best_of(machine)
        case _:
            return Choice("url", "given by its URL", asked.rstrip("/"))


def _best_of(machine: Machine) -> Choice:
    if machine.docker is not None:
        return Choice("docker", "in Docker: a daemon runs here")
    if machine.binary is not None:
        return Choice("binary", f"{machine.binary}: found on PATH, and no Docker daemon")
    return Choice("embedded", "embedded, kept in .flowctl/engine.db: no Docker daemon, no inngest on PATH")
