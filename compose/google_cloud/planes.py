"""What the control plane knows of the real servers behind its instances.

The API's instances are records; a plane is the server that such a record stands for. The control plane calls these methods while an
operation is under way, and samples `measure` for Cloud Monitoring. Every method answers when its effect is there, raises PlaneFailed where
it can't be brought about, and can be called again. A plane is changed by one caller at a time: the control plane holds a lock an instance.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypedDict


class PlaneFailed(Exception):
    """The real server did not do what was asked; the message says what its log shows. Operations end with it as their error."""


class MemorystoreMeasures(TypedDict):
    """As `redis.googleapis.com/stats/memory/*` and `clients/connected`."""

    usage_ratio: float
    system_memory_usage_ratio: float
    clients: int


class SqlMeasures(TypedDict):
    """As `cloudsql.googleapis.com/database/{cpu,memory,disk}/utilization` (0-1) and `postgresql/num_backends`."""

    cpu: float
    memory: float
    disk: float
    backends: int


class MachineMeasures(TypedDict):
    """As `compute.googleapis.com/instance/cpu/utilization` (0-1) and `agent.googleapis.com/{memory,disk}/percent_used` (0-100)."""

    cpu: float
    memory_percent: float
    disk_percent: float


@dataclass(frozen=True)
class SqlRows:
    """What one statement answered, every value as text."""

    columns: tuple[tuple[str, str], ...]
    """Name and type of each."""
    rows: tuple[tuple[str | None, ...], ...]


class MemorystorePlane(Protocol):
    """A Redis server whose maxmemory follows the instance's size."""

    @property
    def host(self) -> str:
        """Address that the API answers as `host`; the same for the life of the instance, also after a failover."""

    @property
    def port(self) -> int:
        """Port that the API answers."""

    @property
    def auth(self) -> str | None:
        """The AUTH string, None where AUTH is off."""

    @property
    def running(self) -> bool:
        """Whether the server's process lives."""

    async def start(self, memory_gib: int) -> None:
        """Start, empty; on STANDARD_HA with its replica."""

    async def stop(self) -> None:
        """End every process."""

    async def resize(self, memory_gib: int, *, keeps_data: bool) -> None:
        """Change the size. Without `keeps_data` (BASIC) it restarts, empty; with it (STANDARD_HA) connections drop and the data stays."""

    async def failover(self) -> None:
        """End the primary, let the replica take its place and address, and start a new replica."""

    async def kill(self) -> None:
        """SIGKILL for every process, as a crashed node."""

    async def stored_gib(self) -> float:
        """What is stored, in the instance's GiB: a smaller size is refused."""

    async def measure(self) -> MemorystoreMeasures | None:
        """The metrics now; None where the server gives none."""


class SqlPlane(Protocol):
    """A PostgreSQL server whose max_connections follow the tier and whose data directory is its storage."""

    @property
    def host(self) -> str:
        """The private address; the port is PostgreSQL's own, 5432."""

    @property
    def port(self) -> int:
        """The port."""

    @property
    def running(self) -> bool:
        """Whether the server's process lives."""

    async def start(self, tier: str, storage_gib: int) -> None:
        """Start, made on the first start."""

    async def stop(self) -> None:
        """Fast shutdown, then by force."""

    async def restart(self) -> None:
        """Stop and start."""

    async def change(self, tier: str, storage_gib: int) -> None:
        """Another tier restarts the server; more storage does not."""

    async def execute(self, database: str, statement: str) -> SqlRows:
        """One statement as the IAM identity's database user, who may end others' queries. PlaneFailed with the server's word."""

    async def kill(self) -> None:
        """SIGKILL for every process."""

    async def measure(self) -> SqlMeasures | None:
        """The metrics now; None where the server gives none."""


class MachinePlane(Protocol):
    """A virtual machine: namespaces with an sshd and whatever is started in them."""

    @property
    def host(self) -> str:
        """Address of its SSH server."""

    @property
    def port(self) -> int:
        """Port of its SSH server."""

    @property
    def host_key(self) -> str:
        """Its public host key, as `ssh-ed25519 AAAA...`; the same over restarts."""

    @property
    def user(self) -> str:
        """Who logs in."""

    @property
    def running(self) -> bool:
        """Whether it runs; False also after a `poweroff` from within, which makes an instance TERMINATED."""

    async def boot(self) -> None:
        """Start it, and wait until its SSH server answers."""

    async def shutdown(self) -> None:
        """As an ACPI shutdown: SIGTERM for all its processes, SIGKILL for what is left."""

    async def reset(self) -> None:
        """SIGKILL for all its processes, and start again; a frozen machine thaws."""

    async def freeze(self) -> None:
        """Stop all its processes where they stand: connections stay open and nothing answers."""

    async def thaw(self) -> None:
        """Let them go on."""

    async def measure(self) -> MachineMeasures | None:
        """The metrics now; None while it is off or frozen."""


@dataclass(frozen=True)
class Planes:
    """The planes of one world, by the names of their instances; instances without a plane are records alone."""

    machines: Mapping[str, MachinePlane]
    databases: Mapping[str, SqlPlane]
    caches: Mapping[str, MemorystorePlane]
