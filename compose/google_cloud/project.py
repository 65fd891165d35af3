"""The project as the APIs see it: its instances, each a record before its plane, and what is under way on them."""

import asyncio
import zlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal

from compose.google_cloud.access import Access
from compose.google_cloud.operations import Operations
from compose.google_cloud.planes import MachinePlane, MemorystorePlane, Planes, SqlPlane
from compose.google_cloud.world import ComputeDescribed, RedisDescribed, SqlDescribed, World

CREATED = datetime.now(UTC) - timedelta(days=30)


def text_of(moment: datetime) -> str:
    """As Google writes times."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def number_of(name: str) -> int:
    """A stable number for what has a numeric id or an address of its own."""
    return zlib.crc32(name.encode())


@dataclass
class Machine:
    """A Compute Engine instance."""

    described: ComputeDescribed
    plane: MachinePlane | None
    status: str = "RUNNING"
    labels: dict[str, str] = field(default_factory=dict)
    machine_type: str = ""
    started: datetime = CREATED
    stopped: datetime | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def name(self) -> str:
        """The instance's."""
        return self.described.name

    @property
    def address(self) -> str:
        """Its address in the VPC: its plane's, or one of its own that nobody answers."""
        number = number_of(self.name)
        return self.plane.host if self.plane is not None else f"10.164.{number >> 8 & 255}.{number & 255}"


@dataclass
class SqlInstance:
    """A Cloud SQL instance."""

    described: SqlDescribed
    plane: SqlPlane | None
    tier: str = ""
    storage_gib: int = 0
    activation: Literal["ALWAYS", "NEVER"] = "ALWAYS"
    settings_version: int = 1
    state: str = "RUNNABLE"
    labels: dict[str, str] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def name(self) -> str:
        """The instance's."""
        return self.described.name


@dataclass
class RedisInstance:
    """A Memorystore instance."""

    described: RedisDescribed
    plane: MemorystorePlane | None
    memory_gib: int = 0
    state: str = "READY"
    display_name: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    redis_configs: dict[str, str] = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def name(self) -> str:
        """The instance's."""
        return self.described.name


class Project:
    """Its instances and operations, and who may use them."""

    def __init__(self, world: World, access: Access, planes: Planes) -> None:
        self.world = world
        self.id = world.project
        self.access = access
        self.operations = Operations(world.delays)
        self._planes = planes
        self.machines: dict[str, Machine] = {}
        self.databases: dict[str, SqlInstance] = {}
        self.caches: dict[str, RedisInstance] = {}
        self._fill()

    @property
    def zones(self) -> list[str]:
        """Zones that there are: those in use."""
        return sorted({one.zone for one in self.world.compute} | {"europe-west4-a", "europe-west4-b", "us-central1-a"})

    @property
    def regions(self) -> list[str]:
        """Regions that there are."""
        used = {one.region for one in self.world.sql} | {one.region for one in self.world.redis}
        return sorted(used | {zone.rsplit("-", 1)[0] for zone in self.zones})

    def notice_powered_off(self) -> None:
        """A machine that was powered off from within is TERMINATED, by an operation of Google's own."""
        for machine in self.machines.values():
            if machine.plane is None or machine.plane.running or machine.status != "RUNNING" or machine.lock.locked():
                continue
            if self.operations.under_way("compute", machine.name) is None:
                machine.status, machine.stopped = "TERMINATED", datetime.now(UTC)
                self.operations.note("compute", "compute.instances.guestTerminate", machine.name, machine.described.zone)

    async def restore(self) -> None:
        """Every record is as the world describes it, no operation is under way, and what should run runs."""
        await self.operations.clear()
        self.operations.delays = self.world.delays
        resized = {one.name for one in self.caches.values() if one.memory_gib != one.described.memory_gib}
        self._fill()
        for machine in self.machines.values():
            await _restored_machine(machine)
        for database in self.databases.values():
            if database.plane is not None:
                await (database.plane.change if database.plane.running else database.plane.start)(database.tier, database.storage_gib)
        for cache in self.caches.values():
            if cache.plane is None:
                continue
            if not cache.plane.running:
                await cache.plane.start(cache.memory_gib)
            elif cache.name in resized:
                await cache.plane.resize(cache.memory_gib, keeps_data=True)

    def _fill(self) -> None:
        planes = self._planes
        self.machines = {
            one.name: Machine(one, planes.machines.get(one.name), one.status, dict(one.labels), one.machine_type)
            for one in self.world.compute
        }
        self.databases = {
            one.name: SqlInstance(one, planes.databases.get(one.name), one.tier, one.storage_gib, labels=dict(one.labels))
            for one in self.world.sql
        }
        self.caches = {
            one.name: RedisInstance(one, planes.caches.get(one.name), one.memory_gib, labels=dict(one.labels)) for one in self.world.redis
        }


async def _restored_machine(machine: Machine) -> None:
    plane = machine.plane
    if plane is None:
        return
    await plane.thaw()
    if machine.status == "RUNNING" and not plane.running:
        await plane.boot()
    elif machine.status == "TERMINATED" and plane.running:
        await plane.shutdown()
