"""What deployers are told about a bundle, and what they answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

MANIFEST = "flowctl.json"


@dataclass(frozen=True, slots=True)
class BundleFacts:
    """The bundle as far as platforms care: its name and the Python it was pinned for ("3.11")."""

    name: str
    python: str


class Deployer(Protocol):
    """A platform."""

    @property
    def target(self) -> str:
        """The platform's name, as `--target` takes it."""
        ...

    def files(self, facts: BundleFacts) -> Mapping[str, str]:
        """The text files that the platform reads, by their path in the bundle."""
        ...

    def probe(self) -> Sequence[str] | None:
        """A command that succeeds when the platform's service is reachable; None: nothing to ask."""
        ...

    def commands(self, facts: BundleFacts, *, prod: bool) -> Sequence[Sequence[str]]:
        """The commands that deploy, in order; they run in the bundle's folder."""
        ...
