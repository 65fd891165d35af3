"""How scenarios reach what Google runs: with the inventory's own logins, and the way that probes and tools take."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from redis.asyncio import Redis

from tasks.clients.cloud_sql import CloudSqlClient
from tasks.clients.memorystore import MemorystoreClient
from tasks.clients.polling import poll
from tasks.core.errors import EvenkeelError
from tasks.scenarios.stage import InjectionFailedError, Stage

READY_SECONDS = 60.0
PAGE_BYTES, SMALL_BYTES = 16 * 1024, 1024
MOST_PAGES = 100_000
AT_ONCE = 100


@asynccontextmanager
async def database_stage(stage: Stage) -> AsyncIterator[Stage]:
    """The stage with the database itself as its resource, where it is reached from here."""
    client = stage.client()
    assert isinstance(client, CloudSqlClient)
    try:
        database = await client.database(await client.instance(fresh=True))
    except EvenkeelError as error:
        raise InjectionFailedError(f"{stage.resource.name}: no way to its database: {error}") from error
    yield replace(stage, resource=database.resource, open_client=lambda _: database)


async def server_of(stage: Stage) -> Redis:
    """The Redis of a Memorystore instance; the client's own, which nobody closes here."""
    client = stage.client()
    assert isinstance(client, MemorystoreClient)
    try:
        return await client.redis(await client.instance(fresh=True))
    except EvenkeelError as error:
        raise InjectionFailedError(f"{stage.resource.name}: no way to its server: {error}") from error


async def fill(redis: Redis, percent: float, pages: list[str]) -> None:
    """Add rendered pages that do not expire until that share of maxmemory is used; their keys are kept in `pages`."""
    while len(pages) < MOST_PAGES:
        info = await redis.info("memory")
        room = info["maxmemory"] * percent / 100 - info["used_memory"] + info.get("mem_not_counted_for_evict", 0)
        if room <= 0:
            return
        size = PAGE_BYTES if room > 4 * PAGE_BYTES else SMALL_BYTES
        keys = [f"page:{secrets.token_hex(8)}" for _ in range(max(1, min(AT_ONCE, int(room // (2 * size)))))]
        pages += keys
        async with redis.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.set(key, "<li>Product</li>" * (size // 16))
            await pipeline.execute()
    raise InjectionFailedError(f"{MOST_PAGES} pages are not {percent:g} % of its memory; give the instance less")


async def left_of(redis: Redis, pages: list[str]) -> int:
    """How many of the pages are still there."""
    found = 0
    for first in range(0, len(pages), AT_ONCE):
        found += int(await redis.exists(*pages[first : first + AT_ONCE]))
    return found


async def remove(redis: Redis, pages: list[str]) -> None:
    """Delete the pages."""
    for first in range(0, len(pages), AT_ONCE):
        await redis.unlink(*pages[first : first + AT_ONCE])


async def until_ready(stage: Stage, seconds: float = READY_SECONDS) -> None:
    """Wait until the API calls the instance READY; InjectionFailedError at the deadline."""
    client = stage.client()
    assert isinstance(client, MemorystoreClient)

    async def ready() -> bool | None:
        return (await client.instance(fresh=True)).state == "READY" or None

    if not await poll(ready, seconds=seconds, every_seconds=0.2):
        raise InjectionFailedError(f"{stage.resource.name}: not READY within {seconds:g} s")
