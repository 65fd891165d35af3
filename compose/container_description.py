"""The lab in containers: its directory, project, ports and logins, kept in DIR/lab.json for whoever uses it."""

from pathlib import Path

from pydantic import Field, ValidationError

from compose.description import (
    HOST,
    SERVICES,
    LabDescription,
    LabError,
    Login,
    Model,
    description_path,
    free_ports,
    save,
)
from compose.new_lab import new_login, new_servers

PROJECT = "evenkeel-lab"
ENGINE_SOCKET = Path("/var/run/docker.sock")
CONTAINERS = {
    "database": "shop-db-container",
    "cache": "shop-cache-container",
    "web": "shop-web-container",
    "app": "shop-app-container",
    "replica": "shop-replica-container",
    "traffic": "shop-traffic-container",
    "reports": "shop-reports-container",
}
"""Compose service -> name of its container among the inventory's resources."""


class Scale(Model):
    """What the profile `scale` has besides: the same server in parts, and a worker in each of two pools."""

    worker_port: int
    """Where the second pool's worker answers that it is well."""
    broker: Login
    auth: Login
    """What the server asks of everybody."""


class Prefect(Model):
    """What keeps the lab healthy when it runs in containers too, by the profile `prefect` or `scale`."""

    port: int
    worker_port: int
    """Where the worker answers that it is well."""
    database: Login
    scale: Scale

    @property
    def url(self) -> str:
        """The server's UI; it ends with a slash."""
        return f"http://{HOST}:{self.port}/"


class ContainerLab(LabDescription):
    """A lab whose servers run in containers. Addresses, paths and logins are those of the host, as they are of a lab of processes."""

    project: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="Name of the compose project: the containers' names begin with it.")
    database_settings: Path | None = Field(None, description="postgresql.auto.conf as this user reaches it; None where it can't.")
    prefect: Prefect

    @property
    def compose_environment(self) -> Path:
        """The variables of compose.yaml; no password is among them."""
        return self.directory / "compose.env"

    def config(self, service: str) -> Path:
        """The directory that is mounted as a service's configuration."""
        return self.directory / "config" / service

    def secrets(self, service: str) -> Path:
        """The directory that is mounted as a service's secrets."""
        return self.directory / "secrets" / service

    def container(self, service: str) -> str:
        """Name of the (first) container of a compose service."""
        return f"{self.project}-{service}-1"


def load_container_lab(directory: Path) -> ContainerLab:
    """The container lab of a directory; LabError when there is none."""
    path = description_path(directory.resolve())
    remedy = f"start one with `python -m compose.container_lab up --directory {directory}`"
    try:
        return ContainerLab.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise LabError(f"{directory}: no lab here; {remedy}") from error
    except ValidationError as error:
        raise LabError(
            f"{path}: not a description of a lab in containers; give another directory, or remove this one and {remedy}"
        ) from error


def prepare_container_lab(directory: Path, project: str) -> ContainerLab:
    """The directory's lab, or a new one with free ports and fresh passwords. Creates the directory with mode 0700."""
    directory = directory.absolute()
    if set(str(directory)) & set("\"'\\${}:;,\n\r"):
        raise LabError(f"directory: {str(directory)!r} has a character that can't stand in a mount; choose another directory")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if description_path(directory).exists():
        lab = load_container_lab(directory)
        if lab.project != project:
            raise LabError(f"project: the lab in {directory} is {lab.project!r}; give that name, or choose another directory")
        return lab
    lab = _new(directory, project)
    save(lab)
    return lab


def _new(directory: Path, project: str) -> ContainerLab:
    names = (*SERVICES, "tls", "prefect", "worker", "second-worker")
    port = dict(zip(names, free_ports(len(names)), strict=True))
    config = directory / "config"
    return ContainerLab(
        directory=directory,
        control=ENGINE_SOCKET,
        project=project,
        services=SERVICES,
        **new_servers(port, cache_config=config / "cache" / "redis.conf", web_config=config / "web" / "nginx.conf"),
        prefect=Prefect(
            port=port["prefect"],
            worker_port=port["worker"],
            database=new_login("prefect"),
            scale=Scale(worker_port=port["second-worker"], broker=new_login("prefect"), auth=new_login("evenkeel")),
        ),
    )
