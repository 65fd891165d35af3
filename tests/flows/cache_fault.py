"""A full cache as a fault, put there and looked at over the tests' own connection, and the lab's inventory changed for a while."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from prefect.client.orchestration import get_client
from redis.asyncio import Redis

from blocks.inventory import load_inventory, save_inventory
from blocks.schema import Resource
from compose.description import LabDescription


def connect(lab: LabDescription) -> Redis:
    """A connection of the tests' own."""
    return Redis(host=lab.cache.host, port=lab.cache.port, username=lab.cache.username, password=lab.cache.password)


async def fill(lab: LabDescription, percent: float) -> float:
    """Fill the cache and answer the share of maxmemory in percent."""
    async with connect(lab) as redis:
        number = 0
        while True:
            memory = await redis.info("memory")
            share = 100 * memory["used_memory"] / memory["maxmemory"]
            if share >= percent:
                return float(share)
            await redis.set(f"page:test-{number}", b"x" * 200_000)
            number += 1


async def empty(lab: LabDescription) -> None:
    """Delete what `fill` put there."""
    async with connect(lab) as redis:
        keys = [key async for key in redis.scan_iter(match="page:test-*", count=1000)]
        if keys:
            await redis.delete(*keys)


async def maxmemory_mib(lab: LabDescription) -> float:
    """The limit as the server has it."""
    async with connect(lab) as redis:
        return int(str((await redis.config_get("maxmemory"))["maxmemory"])) / 2**20


@asynccontextmanager
async def inventory_with(*changed: Resource, **rules: Any) -> AsyncIterator[None]:
    """The saved inventory with some resources and rules changed, and as it was afterwards."""
    before = await load_inventory("lab")
    names = {one.name: one for one in changed}
    resources = tuple(names.get(one.name, one) for one in before.resources)
    after = before.model_copy(update={"resources": resources, "rules": before.rules.model_copy(update=rules)})
    async with get_client() as client:
        await save_inventory(client, after)
    try:
        yield
    finally:
        async with get_client() as client:
            await save_inventory(client, before)
