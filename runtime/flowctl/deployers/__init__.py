"""Deployers: what a platform reads beside a bundle, and the commands that bring the bundle there.

Pure: the command line writes the files and runs the commands.
"""

from __future__ import annotations

from flowctl.deployers.base import BundleFacts, Deployer
from flowctl.deployers.docker import DockerDeployer
from flowctl.deployers.vercel import VercelDeployer

__all__ = ["BundleFacts", "Deployer", "DockerDeployer", "VercelDeployer"]
