"""Vercel: the bundle's `server.py` as one Python function that answers every path."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flowctl.deployers.base import BundleFacts


@dataclass(frozen=True, slots=True)
class VercelDeployer:
    """`App(deployer=VercelDeployer())`: deploys with the command `vercel`, which asks who you are itself."""

    @property
    def target(self) -> str:
        """See Deployer."""
        return "vercel"

    def files(self, facts: BundleFacts) -> Mapping[str, str]:
        """See Deployer."""
        routing = {
            "version": 2,
            "builds": [{"src": "server.py", "use": "@vercel/python"}],
            "routes": [{"src": "/(.*)", "dest": "server.py"}],
        }
        return {"vercel.json": json.dumps(routing, indent=2) + "\n", ".python-version": f"{facts.python}\n"}

    def probe(self) -> Sequence[str] | None:
        """See Deployer."""
        return None

    def commands(self, facts: BundleFacts, *, prod: bool) -> Sequence[Sequence[str]]:  # noqa: ARG002 - Vercel names the project itself
        """See Deployer."""
        return [["vercel", "deploy", "--yes", *(["--prod"] if prod else [])]]
