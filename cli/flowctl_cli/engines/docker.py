"""Inngest's container as the engine: a worker of the dev server that starts it and removes it.

The only file that loads the Docker SDK. Its calls block, so they run in threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import docker
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.models.containers import Container

from flowctl.errors import EngineError
from flowctl_cli.dev.channel import Job
from flowctl_cli.engines.health import until_healthy

CONTAINER_PORT = 8288
LABEL, DIGEST_LABEL = "dev.flowctl.project", "dev.flowctl.config"
ANSWER_SECONDS, PULL_SECONDS, HEALTH_SECONDS = 60, 600, 60.0
LOG_TAIL = 20


@dataclass(frozen=True, slots=True)
class Wanted:
    """The container that a project's dev server needs."""

    name: str
    image: str
    project: str
    app_url: str
    port: int

    @property
    def command(self) -> list[str]:
        """What it runs."""
        return ["inngest", "dev", "-u", self.app_url, "--no-discovery", "--port", str(CONTAINER_PORT)]

    @property
    def labels(self) -> dict[str, str]:
        """Whose it is, and made from what."""
        made_from = json.dumps([self.image, self.command, self.port]).encode()
        return {LABEL: self.project, DIGEST_LABEL: hashlib.sha256(made_from).hexdigest()[:16]}


def container_name(root: str) -> str:
    """One name a project."""
    return f"flowctl-inngest-{hashlib.sha256(root.encode()).hexdigest()[:10]}"


async def serve(job: Job) -> None:
    """Run it until the supervisor says to end; raises EngineError with the way out."""
    spec = job.spec
    wanted = Wanted(container_name(spec["root"]), spec["image"], spec["root"], spec["app_url"], spec["port"])
    engine = ContainerEngine(wanted, job.channel.send)
    told_to_end = asyncio.create_task(job.channel.until_told_to_end())
    starting = asyncio.create_task(_start(engine, spec, job))
    try:
        await _first(told_to_end, starting)
        if not told_to_end.done():
            await _first(told_to_end, asyncio.create_task(engine.until_stopped()))
    finally:
        engine.ending.set()
        await asyncio.wait({starting})  # what it has begun is there to be removed then
        await asyncio.to_thread(engine.remove)


async def _start(engine: ContainerEngine, spec: Mapping[str, Any], job: Job) -> None:
    await asyncio.to_thread(engine.start, spec["docker"])
    if not await until_healthy(spec["url"], within=HEALTH_SECONDS, gives_up=engine.is_over):
        how = "stopped" if engine.stopped.is_set() else f"does not answer at {spec['url']}"
        raise EngineError(f"The container {engine.wanted.name} ({spec['image']}) {how}; its log is above.")
    job.channel.send(loaded={"kind": "docker"})
    job.channel.send(ready=True)


async def _first(*tasks: asyncio.Task[Any]) -> None:
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


@dataclass(slots=True)
class ContainerEngine:
    """The container through its life."""

    wanted: Wanted
    tell: Callable[..., None]
    stopped: threading.Event = field(default_factory=threading.Event)
    ending: threading.Event = field(default_factory=threading.Event)
    _client: Any = None
    _container: Container | None = None

    def start(self, daemon: str) -> None:
        """Get the image, reuse or replace what a dead dev server left, start; raises EngineError."""
        try:
            self._client = docker.DockerClient(base_url=daemon, timeout=ANSWER_SECONDS)
            self._get_image()
            self._container = self._reusable() or self._run()
        except EngineError:
            raise
        except (DockerException, OSError) as err:
            raise EngineError(f"Docker could not run {self.wanted.image}: {_said(err)}.") from err
        threading.Thread(target=self._pass_log_on, daemon=True).start()

    async def until_stopped(self) -> None:
        """Wait until it is not running any more."""
        while not self.stopped.is_set():  # noqa: ASYNC110 - set by a thread
            await asyncio.sleep(0.1)
        raise EngineError(f"The container {self.wanted.name} stopped; its log is above.")

    def is_over(self) -> bool:
        """Whether there is no use in waiting for it."""
        return self.stopped.is_set() or self.ending.is_set()

    def remove(self) -> None:
        """Leave nothing behind."""
        if self._container is not None:
            with contextlib.suppress(DockerException, OSError):
                self._container.remove(force=True, v=True)
        if self._client is not None:
            self._client.close()

    def _get_image(self) -> None:
        with contextlib.suppress(ImageNotFound):
            self._client.images.get(self.wanted.image)
            return
        repository, tag = _repository_and_tag(self.wanted.image)
        try:
            self._client.api.timeout = PULL_SECONDS
            for event in self._client.api.pull(repository, tag=tag, stream=True, decode=True):
                if self.ending.is_set():
                    raise EngineError("The pull was given up.")
                if "error" in event:
                    raise EngineError(_pull_failed(self.wanted.image, event["error"]))
                self.tell(pull=_progress(event))
        except (DockerException, OSError) as err:
            raise EngineError(_pull_failed(self.wanted.image, _said(err))) from err
        finally:
            self.tell(pull=None)
            self._client.api.timeout = ANSWER_SECONDS

    def _reusable(self) -> Container | None:
        """The container of this project that still runs as wanted; any other one of its name is removed."""
        wanted = self.wanted
        try:
            found = cast("Container", self._client.containers.get(wanted.name))
        except NotFound:
            return None
        if found.labels.get(LABEL) != wanted.project:
            raise EngineError(
                f"There is a container {wanted.name!r} that flowctl did not make: "
                f"remove it (docker rm -f {wanted.name})."
            )
        image = self._client.images.get(wanted.image).id
        same = found.labels.get(DIGEST_LABEL) == wanted.labels[DIGEST_LABEL] and found.attrs["Image"] == image
        if same and found.status == "running":
            self.tell(line=f"using the container {wanted.name} that runs already")
            return found
        found.remove(force=True, v=True)
        return None

    def _run(self) -> Container:
        wanted = self.wanted
        try:
            made = self._client.containers.run(
                wanted.image,
                wanted.command,
                name=wanted.name,
                labels=wanted.labels,
                ports={f"{CONTAINER_PORT}/tcp": ("127.0.0.1", wanted.port)},
                extra_hosts={"host.docker.internal": "host-gateway"},
                detach=True,
            )
        except APIError as err:
            self._forget_unstarted()
            raise EngineError(self._why_not(err)) from err
        return cast("Container", made)

    def _forget_unstarted(self) -> None:
        with contextlib.suppress(DockerException):
            self._client.containers.get(self.wanted.name).remove(force=True, v=True)

    def _why_not(self, err: APIError) -> str:
        said = _said(err)
        if "port is already allocated" in said or "address already in use" in said:
            return (
                f"Port {self.wanted.port} is taken, so the engine's container cannot have it: stop the other "
                "program, or choose another one with --engine-port."
            )
        if "executable file not found" in said or "no such file" in said:
            return f"The image {self.wanted.image} has no `inngest` command: check --engine-image."
        return f"Docker could not start {self.wanted.image}: {said}."

    def _pass_log_on(self) -> None:
        """The container's log, line by line, until it stops."""
        container = self._container
        if container is None:
            return
        with contextlib.suppress(DockerException, OSError, ValueError):
            for line in _lines(container.logs(stream=True, follow=True, tail=LOG_TAIL)):
                self.tell(line=line)
        self.stopped.set()


def _lines(chunks: Any) -> Iterator[str]:
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line.decode(errors="replace").rstrip() for line in whole)
    if rest:
        yield rest.decode(errors="replace")


def _progress(event: Mapping[str, Any]) -> dict[str, Any]:
    detail = event.get("progressDetail") or {}
    return {
        "layer": event.get("id", ""),
        "status": event.get("status", ""),
        "current": detail.get("current", 0),
        "total": detail.get("total", 0),
    }


def _repository_and_tag(image: str) -> tuple[str, str]:
    name, _, tag = image.rpartition(":")
    return (name, tag) if name and "/" not in tag else (image, "latest")


def _pull_failed(image: str, why: str) -> str:
    return (
        f"The image {image} is not on this machine and could not be pulled: {why.rstrip('.')}. "
        f"Pull it where there is a network (docker pull {image}), or use --engine embedded."
    )


def _said(err: BaseException) -> str:
    return str(getattr(err, "explanation", None) or err).rstrip(".")
