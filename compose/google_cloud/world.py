"""The world that the simulator plays: one project, who may do what in it, its instances, and how long things take.

`python -m compose.google_cloud --directory DIR` reads DIR/world.yaml, and plays `default_world()` where there is none.
"""

from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError

from compose.description import LabError, Model

FULL = (
    "compute.instances.get",
    "compute.instances.list",
    "compute.instances.reset",
    "compute.instances.start",
    "compute.instances.stop",
    "compute.regions.list",
    "compute.zoneOperations.get",
    "compute.zoneOperations.list",
    "compute.zones.list",
    "cloudsql.instances.executeSql",
    "cloudsql.instances.get",
    "cloudsql.instances.list",
    "cloudsql.instances.login",
    "cloudsql.instances.restart",
    "cloudsql.instances.update",
    "monitoring.timeSeries.list",
    "redis.instances.failover",
    "redis.instances.get",
    "redis.instances.list",
    "redis.instances.update",
    "redis.locations.list",
    "redis.operations.get",
    "redis.operations.list",
    "resourcemanager.projects.get",
)
"""Everything that evenkeel asks for."""
READING = tuple(one for one in FULL if one.rsplit(".", 1)[1] in {"get", "list"})
"""What the probes alone need."""

SHORT_SECONDS = 0.5
REALISTIC_SECONDS = {
    "compute.instances.start": 30.0,
    "compute.instances.stop": 40.0,
    "compute.instances.reset": 30.0,
    "sql.instances.restart": 60.0,
    "sql.instances.patch": 180.0,
    "redis.projects.locations.instances.patch": 300.0,
    "redis.projects.locations.instances.failover": 60.0,
}
REALISTIC_INGEST_SECONDS = 210.0
REALISTIC_BOOT_SECONDS = 20.0


class Delays(Model):
    """How long operations take, by the discovery document's method id, and when a point can be read after it was measured."""

    operation_seconds: float = Field(SHORT_SECONDS, ge=0, description="Of methods that are not named below.")
    by_method: dict[str, float] = Field(default_factory=dict)
    ingest_seconds: float = Field(2, ge=0, description="From measuring a point of Cloud Monitoring until it can be read.")

    def of(self, method: str) -> float:
        """Seconds that an operation of the method takes at least; the real server's own time is part of it."""
        return self.by_method.get(method, self.operation_seconds)


class CloudIdentity(Model):
    """A service account. The simulator makes its key and writes DIR/keys/NAME.json (mode 0600)."""

    name: str = Field(pattern=r"^[a-z][-a-z0-9]*$", description="The part before @PROJECT.iam.gserviceaccount.com.")
    permissions: tuple[str, ...] = FULL
    may_impersonate: tuple[str, ...] = Field((), description="Names of the identities for which it may make tokens.")


class InstanceDescribed(Model):
    """What every instance has."""

    name: str = Field(pattern=r"^[a-z]([-a-z0-9]{0,96}[a-z0-9])?$")
    labels: dict[str, str] = Field(default_factory=dict)
    plane: bool = Field(True, description="A real server stands behind it; false: a record alone, of which a world may have thousands.")


class ComputeDescribed(InstanceDescribed):
    """A virtual machine; `memory_mib`, `cpus` and `disk_mib` are the size of what really runs."""

    zone: str = "europe-west4-a"
    machine_type: str = "e2-micro"
    status: Literal["RUNNING", "TERMINATED"] = "RUNNING"
    memory_mib: int = Field(256, ge=64)
    cpus: int = Field(1, ge=1)
    disk_mib: int = Field(64, ge=8)
    boot_seconds: float = Field(0, ge=0, description="From power on, or a guest reboot, until its services start.")


class SqlDescribed(InstanceDescribed):
    """A Cloud SQL instance for PostgreSQL."""

    region: str = "europe-west4"
    tier: str = "db-g1-small"
    storage_gib: int = Field(10, ge=10)
    availability: Literal["ZONAL", "REGIONAL"] = "ZONAL"
    database: str = "orders"
    data_api: bool = Field(True, description="executeSql is allowed (dataApiAccess, with IAM database authentication).")


class RedisDescribed(InstanceDescribed):
    """A Memorystore instance for Redis."""

    region: str = "europe-west4"
    tier: Literal["BASIC", "STANDARD_HA"] = "BASIC"
    memory_gib: int = Field(1, ge=1, le=300)
    auth: bool = True


class World(Model):
    """All of it."""

    project: str = Field("evenkeel-lab", pattern=r"^[a-z][-a-z0-9]{4,28}[a-z0-9]$")
    project_number: int = 424242424242
    identities: tuple[CloudIdentity, ...] = (CloudIdentity(name="evenkeel"),)
    compute: tuple[ComputeDescribed, ...] = ()
    sql: tuple[SqlDescribed, ...] = ()
    redis: tuple[RedisDescribed, ...] = ()
    delays: Delays = Delays()


def default_world() -> World:
    """The lab's: a shop's virtual machine, its orders, a cache (STANDARD_HA) and a store (BASIC). An operation takes half a second."""
    labels = {"app": "shop"}
    return World(
        identities=(
            CloudIdentity(name="evenkeel", may_impersonate=("reader",)),
            CloudIdentity(name="reader", permissions=READING),
        ),
        compute=(ComputeDescribed(name="shop-vm", labels=labels),),
        sql=(SqlDescribed(name="orders-db", labels=labels),),
        redis=(
            RedisDescribed(name="pages-cache", tier="STANDARD_HA", labels=labels),
            RedisDescribed(name="sessions-store", tier="BASIC", labels=labels),
        ),
    )


def realistic_world() -> World:
    """The same, with operations that take half a minute to five, as the real ones."""
    world = default_world()
    machines = tuple(machine.model_copy(update={"boot_seconds": REALISTIC_BOOT_SECONDS}) for machine in world.compute)
    delays = Delays(by_method=dict(REALISTIC_SECONDS), ingest_seconds=REALISTIC_INGEST_SECONDS)
    return world.model_copy(update={"compute": machines, "delays": delays})


def world_path(directory: Path) -> Path:
    """Where a directory's world is described."""
    return directory / "world.yaml"


def load_world(directory: Path) -> World:
    """The directory's world, or the default one; LabError names the field that is wrong."""
    path = world_path(directory)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return default_world()
    try:
        return World.model_validate(yaml.safe_load(text))
    except (ValidationError, yaml.YAMLError) as error:
        raise LabError(f"{path}: {error}") from error


def save_world(directory: Path, world: World) -> None:
    """Write DIR/world.yaml."""
    world_path(directory).write_text(yaml.safe_dump(world.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
