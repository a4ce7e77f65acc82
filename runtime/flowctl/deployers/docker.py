"""Docker: an image of the app, and a compose file with the app, a self-hosted Inngest and PostgreSQL."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flowctl.deployers.base import BundleFacts

_DOCKERFILE = """\
FROM python:{python}-slim
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOST=0.0.0.0 PORT=4111
WORKDIR /app
COPY requirements.txt ./
COPY wheels ./wheels
RUN pip install --no-cache-dir -r requirements.txt
COPY . .
RUN useradd --system app && mkdir -p .flowctl && chown app .flowctl
USER app
EXPOSE 4111
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \\
    CMD ["python", "-c", "import os, urllib.request as r; \
r.urlopen(f'http://127.0.0.1:{{os.environ[\\"PORT\\"]}}/health', timeout=2)"]
CMD ["flowctl", "start", "--dir", "."]
"""

# The dashboard and API of a self-hosted Inngest ask for no password: its port is published on loopback only.
_COMPOSE = """\
name: {name}
services:
  app:
    build: .
    image: {tag}
    restart: unless-stopped
    environment:
      INNGEST_BASE_URL: http://inngest:8288
      INNGEST_EVENT_KEY: ${{INNGEST_EVENT_KEY:?set it to a hexadecimal string}}
      INNGEST_SIGNING_KEY: ${{INNGEST_SIGNING_KEY:?set it to a hexadecimal string}}
    ports:
      - "127.0.0.1:4111:4111"
    volumes:
      - runs:/app/.flowctl
  inngest:
    image: inngest/inngest:latest
    command: inngest start --sdk-url http://app:4111/api/inngest --poll-interval 60
    restart: unless-stopped
    depends_on:
      postgres:
        condition: service_healthy
    environment:
      INNGEST_EVENT_KEY: ${{INNGEST_EVENT_KEY:?set it to a hexadecimal string}}
      INNGEST_SIGNING_KEY: ${{INNGEST_SIGNING_KEY:?set it to a hexadecimal string}}
      INNGEST_POSTGRES_URI: postgres://inngest:${{POSTGRES_PASSWORD}}@postgres:5432/inngest?sslmode=disable
    ports:
      - "127.0.0.1:8288:8288"
  postgres:
    image: postgres:17
    restart: unless-stopped
    environment:
      POSTGRES_USER: inngest
      POSTGRES_DB: inngest
      POSTGRES_PASSWORD: ${{POSTGRES_PASSWORD:?set a password}}
    volumes:
      - database:/var/lib/postgresql/data
    healthcheck:
      test: ["CMD", "pg_isready", "-U", "inngest"]
      interval: 2s
      retries: 30
volumes:
  runs:
  database:
"""


@dataclass(frozen=True, slots=True)
class DockerDeployer:
    """Builds an image with the docker command; `tag` names it (default: the project's name)."""

    tag: str | None = None

    @property
    def target(self) -> str:
        """See Deployer."""
        return "docker"

    def files(self, facts: BundleFacts) -> Mapping[str, str]:
        """See Deployer."""
        return {
            "Dockerfile": _DOCKERFILE.format(python=facts.python),
            "compose.yaml": _COMPOSE.format(name=_slug(facts.name), tag=self._image(facts)),
        }

    def probe(self) -> Sequence[str] | None:
        """See Deployer."""
        return ["docker", "info", "--format", "{{.ServerVersion}}"]

    def commands(self, facts: BundleFacts, *, prod: bool) -> Sequence[Sequence[str]]:  # noqa: ARG002 - an image is the same for every environment
        """See Deployer."""
        return [["docker", "build", "--tag", self._image(facts), "."]]

    def _image(self, facts: BundleFacts) -> str:
        return self.tag or f"{_slug(facts.name)}:latest"


def _slug(name: str) -> str:
    """A name that Docker takes for images and projects."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "app"
