"""The engine in a container, on a real Docker daemon."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import docker
import httpx

from flowctl_cli.engines.choice import DockerHost
from flowctl_cli.engines.docker import container_name
from tests.cli.conftest import Dev, family, flowctl, serving
from tests.cli.test_dev import until


def told(dev: Dev, url: str) -> dict[str, Any]:
    """What the stand-in saw of the app, once it has."""
    seen: dict[str, Any] = {}

    def both() -> bool:
        seen.update(httpx.get(f"{url}/dev").json())
        return bool(seen["app"] and seen["registered"])

    try:
        until(both)
    except AssertionError as err:
        err.add_note(f"{seen}\n{''.join(dev.lines)}")
        raise
    return seen


def engine_url(dev: Dev) -> str:
    return next(line.split()[1] for line in dev.lines if line.startswith("  engine"))


def containers(client: docker.DockerClient, project: Path) -> list[Any]:
    return client.containers.list(
        all=True, ignore_removed=True, filters={"name": container_name(str(project))}
    )


def test_the_container_reaches_an_app_on_loopback_and_is_told_its_functions(
    project: Path, client: docker.DockerClient, image: str
) -> None:
    with serving(project, "--engine-image", image, engine="docker") as dev:
        seen = told(dev, engine_url(dev))
        assert seen["app"]["function_count"] == 4
        assert seen["registered"]["url"].startswith("http://host.docker.internal:")
        assert "engine │ stand-in: dev -u http://host.docker.internal:" in "".join(dev.lines)
        assert dev.url.startswith("http://127.0.0.1:")
        [running] = containers(client, project)
        ports = running.attrs["HostConfig"]["PortBindings"]["8288/tcp"]
        assert [port["HostIp"] for port in ports] == ["127.0.0.1"]
    assert containers(client, project) == []


def test_a_container_is_replaced_when_it_stops(
    project: Path, client: docker.DockerClient, image: str
) -> None:
    with serving(project, "--engine-image", image, engine="docker") as dev:
        containers(client, project)[0].kill()
        dev.wait_for("The engine died")
        until(lambda: [c.status for c in containers(client, project)] == ["running"])
        assert told(dev, engine_url(dev))["registered"]


def test_no_container_is_left_when_the_supervisor_is_killed(
    project: Path, client: docker.DockerClient, image: str
) -> None:
    with serving(project, "--engine-image", image, engine="docker") as dev:
        dev.process.kill()
        dev.process.wait()
        until(lambda: containers(client, project) == [])


def test_a_container_that_a_dead_dev_server_left_is_used_again(
    project: Path, client: docker.DockerClient, image: str
) -> None:
    port = str(free_port())
    options = ("--engine-image", image, "--engine-port", port, "--port", str(free_port()))
    with serving(project, *options, engine="docker") as dev:
        [left] = containers(client, project)
        for pid in (*family(dev.process.pid), dev.process.pid):
            os.kill(pid, signal.SIGKILL)
        dev.process.wait()
    with serving(project, *options, engine="docker") as dev:
        assert [c.id for c in containers(client, project)] == [left.id]
        assert told(dev, engine_url(dev))["registered"]
    assert containers(client, project) == []


def test_a_container_of_another_configuration_is_replaced(
    project: Path, client: docker.DockerClient, image: str
) -> None:
    name = container_name(str(project))
    old = client.containers.create(
        image, ["sleep", "1"], name=name, labels={"dev.flowctl.project": str(project)}
    )
    with serving(project, "--engine-image", image, engine="docker"):
        until(lambda: [c.id != old.id for c in containers(client, project)] == [True])


def test_a_container_of_somebody_else_is_left_alone(
    project: Path, client: docker.DockerClient, image: str
) -> None:
    other = client.containers.create(image, ["sleep", "1"], name=container_name(str(project)))
    try:
        refused = dev_in_docker(project, image)
        assert (refused.returncode, "that flowctl did not make" in refused.stderr) == (4, True), (
            refused.stderr
        )
    finally:
        other.remove(force=True)


def test_an_image_that_cannot_be_pulled_is_named_with_the_way_out(project: Path, daemon: DockerHost) -> None:
    refused = dev_in_docker(project, "localhost:9/nothing-here:1")
    assert refused.returncode == 4
    assert "localhost:9/nothing-here:1 is not on this machine and could not be pulled" in refused.stderr
    assert "--engine embedded" in refused.stderr


def test_auto_uses_another_engine_when_the_image_cannot_be_had(project: Path, daemon: DockerHost) -> None:
    with serving(project, "--engine-image", "localhost:9/nothing-here:1", engine="auto") as dev:
        dev.wait_for("Using another engine instead: ")
        run = flowctl("invoke", "--data", '{"value": 5}', cwd=project)
        assert run.stdout == '{"value": 10}\n', run.stderr


def test_a_container_that_does_not_come_up_ends_the_start_with_its_log(
    project: Path, client: docker.DockerClient, broken_image: str
) -> None:
    refused = dev_in_docker(project, broken_image)
    assert (refused.returncode, "out of luck" in refused.stderr) == (4, True), refused.stderr
    assert containers(client, project) == []


def test_a_port_that_is_taken_is_named(project: Path, image: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused = dev_in_docker(project, image, "--engine-port", str(taken.getsockname()[1]))
    assert (refused.returncode, "--engine-port" in refused.stderr) == (4, True), refused.stderr


def test_an_image_without_inngest_is_named(project: Path, client: docker.DockerClient, image: str) -> None:
    with_no_command = client.containers.create(image, ["sleep", "1"])
    with_no_command.commit("flowctl-test-plain", "1", changes="ENV PATH=/nowhere")
    with_no_command.remove(force=True)
    try:
        refused = dev_in_docker(project, "flowctl-test-plain:1")
        assert (refused.returncode, "has no `inngest` command" in refused.stderr) == (4, True), refused.stderr
    finally:
        client.images.remove("flowctl-test-plain:1", force=True)


def dev_in_docker(project: Path, image: str, *options: str) -> subprocess.CompletedProcess[str]:
    given = [
        "--engine",
        "docker",
        "--engine-image",
        image,
        "--port",
        "0",
        *(options or ("--engine-port", "0")),
    ]
    return flowctl("dev", *given, cwd=project)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])
