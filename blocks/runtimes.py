"""How a service is started, stopped and looked into: as a process of the lab, or as a container. No Prefect."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, StringConstraints, Tag

from blocks.model import Model, Name


class ProcessRuntime(Model):
    """A service that the lab's supervisor runs as a plain process."""

    type: Literal["process"] = "process"
    control: str = Field(description="Path of the supervisor's control socket.")
    service: Name = Field(description="The service's name there.")


LOCAL_ENGINE = "unix:///var/run/docker.sock"
ContainerName = Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$")]


class ContainerRuntime(Model):
    """A service that runs in a container of a Docker engine."""

    type: Literal["container"] = "container"
    container: ContainerName = Field(description="The container's name.")
    engine: str = Field(
        LOCAL_ENGINE, pattern=r"^(unix:///|tcp://[A-Za-z0-9.:-]+$)", description="The engine's API: unix:///path or tcp://host:port."
    )


def _runtime_type(value: object) -> str:
    found = value.get("type", "process") if isinstance(value, dict) else getattr(value, "type", "process")
    return str(found)


AnyRuntime = Annotated[
    Annotated[ProcessRuntime, Tag("process")] | Annotated[ContainerRuntime, Tag("container")],
    Discriminator(_runtime_type, custom_error_type="runtime_type", custom_error_message="type is 'process' or 'container'"),
]
