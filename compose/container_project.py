"""What the engine holds of a compose project, found by the label that Compose puts on everything."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import docker
import docker.errors

from compose.description import LabError
from compose.engine import connect

PROJECT_LABEL = "com.docker.compose.project"
SERVICE_LABEL = "com.docker.compose.service"
DIRECTORY_LABEL = "evenkeel.directory"

T = TypeVar("T")


async def running_containers(project: str) -> list[str]:
    """Names of the project's containers that run."""
    return await _with_engine(lambda client: [container.name for container in client.containers.list(filters=_of(project))])


async def owner(project: str) -> Path | None:
    """The directory of the lab that the project's containers or volumes belong to; None where there are none."""

    def look(client: docker.DockerClient) -> Path | None:
        labels = [container.labels for container in client.containers.list(all=True, filters=_of(project))]
        labels += [volume.attrs["Labels"] for volume in client.volumes.list(filters=_of(project))]
        return next((Path(found[DIRECTORY_LABEL]) for found in labels if DIRECTORY_LABEL in found), None)

    return await _with_engine(look)


async def states(project: str) -> list[dict[str, str]]:
    """Service, name, state and health of each container, by name; health is empty where a container has no check."""

    def look(client: docker.DockerClient) -> list[dict[str, str]]:
        found = [container.attrs for container in client.containers.list(all=True, filters=_of(project))]
        return [
            {
                "service": attributes["Config"]["Labels"][SERVICE_LABEL],
                "container": attributes["Name"].lstrip("/"),
                "state": attributes["State"]["Status"],
                "health": attributes["State"].get("Health", {}).get("Status", ""),
            }
            for attributes in sorted(found, key=lambda attributes: attributes["Name"])
        ]

    return await _with_engine(look)


async def volume_path(project: str, volume: str) -> str:
    """Where the engine keeps, or will keep, a volume of the project, on the machine that it runs on."""
    root = await _with_engine(lambda client: str(client.info()["DockerRootDir"]))
    return f"{root}/volumes/{project}_{volume}/_data"


async def remove_project(project: str) -> bool:
    """Remove the project's containers, networks and volumes; the images stay. False where there was nothing."""

    def remove(client: docker.DockerClient) -> bool:
        containers = client.containers.list(all=True, filters=_of(project))
        for container in containers:
            # Gone meanwhile, or being removed already.
            with contextlib.suppress(docker.errors.NotFound):
                container.remove(force=True, v=True)
        networks = client.networks.list(filters=_of(project))
        for network in networks:
            network.remove()
        volumes = client.volumes.list(filters=_of(project))
        for volume in volumes:
            volume.remove()
        return bool(containers or networks or volumes)

    return await _with_engine(remove)


def _of(project: str) -> dict[str, str]:
    return {"label": f"{PROJECT_LABEL}={project}"}


async def _with_engine(action: Callable[[docker.DockerClient], T]) -> T:
    def call() -> T:
        client = connect()
        try:
            return action(client)
        except docker.errors.APIError as error:
            raise LabError(f"the container engine refused: {error.explanation}") from error
        finally:
            client.close()

    return await asyncio.to_thread(call)
