"""The real servers of a world, from nothing to running, and away again."""

import asyncio
import contextlib
import secrets
import shutil
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any

from compose.description import LabError, Login
from compose.google_cloud.description import PlaneAddress
from compose.google_cloud.machine import Machine, check_machines
from compose.google_cloud.plane_address import free_network
from compose.google_cloud.plane_memorystore import Memorystore
from compose.google_cloud.plane_sql import CloudSql, words
from compose.google_cloud.planes import PlaneFailed, Planes
from compose.google_cloud.world import World
from compose.processes import Trace, kill, traced
from compose.records import locked
from compose.shared_memory import remove_left

SSH_PORT = 2222
"""Port 22 is root's."""


@contextlib.asynccontextmanager
async def open_planes(world: World, directory: Path) -> AsyncIterator[tuple[Planes, dict[str, PlaneAddress]]]:
    """Every plane of a world, running, for the length of a block; what they keep is in DIR/planes, and gone afterwards.

    Where one does not start (LabError), the logs stay until the next start. What an earlier simulator of the directory left when it was
    killed is ended first.
    """
    folder = directory / "planes"
    with locked(directory, f"end it, or give another directory than {directory}"):
        await clear_planes(directory)
        folder.mkdir(mode=0o700)
        if any(one.plane for one in world.compute):
            await check_machines()
        addresses = free_network()
        machines = {
            one.name: Machine(
                folder / one.name,
                (next(addresses), SSH_PORT),
                cpus=one.cpus,
                memory_mib=one.memory_mib,
                disk_mib=one.disk_mib,
                boot_seconds=one.boot_seconds,
            )
            for one in world.compute
            if one.plane
        }
        databases = {one.name: CloudSql(folder / one.name, next(addresses), one.database) for one in world.sql if one.plane}
        caches = {
            one.name: Memorystore(folder / one.name, next(addresses), one.tier, secrets.token_urlsafe(18) if one.auth else None)
            for one in world.redis
            if one.plane
        }
        is_up = False
        try:
            await _together(
                *(machines[one.name].boot() for one in world.compute if one.plane and one.status == "RUNNING"),
                *(databases[one.name].start(one.tier, one.storage_gib) for one in world.sql if one.plane),
                *(caches[one.name].start(one.memory_gib) for one in world.redis if one.plane),
            )
            is_up = True
            yield Planes(machines, databases, caches), _addresses(machines, databases, caches)
        finally:
            await _together(
                *(machine.end() for machine in machines.values()),
                *(database.stop() for database in databases.values()),
                *(cache.stop() for cache in caches.values()),
            )
            if is_up:
                await asyncio.to_thread(shutil.rmtree, folder)


async def clear_planes(directory: Path) -> None:
    """End what a killed simulator left in its directory, and remove it. LabError where something can't be ended."""
    folder = directory / "planes"
    if not folder.exists():
        return
    traces = [
        Trace(log, words(log.parent))
        for instance in folder.iterdir()
        if instance.is_dir()
        for log in instance.iterdir()
        if log.suffix == ".log"
    ]
    left = await kill(set().union(*[await asyncio.to_thread(traced, trace) for trace in traces]))
    if left:
        raise LabError(f"{directory}: process {min(one.pid for one in left)} of an earlier start can't be ended; end it by hand")
    for instance in folder.iterdir():
        for data in ("data", "data.new"):
            remove_left(instance / data)
    await asyncio.to_thread(shutil.rmtree, folder)


async def _together(*steps: Coroutine[Any, Any, None]) -> None:
    """All at the same time; every one is finished before the first failure is raised, as LabError."""
    results = await asyncio.gather(*steps, return_exceptions=True)
    for result in results:
        if isinstance(result, PlaneFailed):
            raise LabError(str(result)) from result
        if isinstance(result, BaseException):
            raise result


def _addresses(machines: dict[str, Machine], databases: dict[str, CloudSql], caches: dict[str, Memorystore]) -> dict[str, PlaneAddress]:
    found = {
        name: PlaneAddress(host=machine.host, port=machine.port, logins={"monitor": machine.login}, host_key=machine.host_key)
        for name, machine in machines.items()
    }
    for name, database in databases.items():
        described = database.described
        found[name] = PlaneAddress(host=database.host, port=database.port, logins=described.logins, database=described.dbname)
    for name, cache in caches.items():
        logins = {"monitor": Login(username="default", password=cache.auth)} if cache.auth else {}
        found[name] = PlaneAddress(host=cache.host, port=cache.port, logins=logins)
    return found
