"""Neighbours that are mildly unwell while a fault is tried: what they hold swings just under its threshold, and is nobody's business."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Literal

import psycopg
from redis.asyncio import Redis
from redis.exceptions import RedisError

from blocks.schema import Kind
from tasks.scenarios.redis_access import connection
from tasks.scenarios.sessions import held_sessions
from tasks.scenarios.stage import InjectionFailedError, Stage

Neighbours = Literal["well", "swinging"]
SWING_SECONDS = 1.0
AGAIN_SECONDS = 2.0
MARGIN_PERCENT = 6.0
"""How far below the threshold the swing ends."""
SWING_PERCENT = 8.0
PAGE_BYTES = 64 * 1024
PAGE_SECONDS = 600
STARTED_SECONDS = 20.0


@asynccontextmanager
async def swinging(stages: Sequence[Stage]) -> AsyncIterator[None]:
    """Let memory (Redis) and connections (PostgreSQL) of these resources swing for the length of a block.

    InjectionFailedError where a swing has not begun after 20 s. What ends it for a moment, such as a restart, does not end the block.
    """
    begun = [asyncio.Event() for _ in stages]
    swings = [asyncio.create_task(_again(SWINGS[stage.resource.kind], stage, one)) for stage, one in zip(stages, begun, strict=True)]
    try:
        try:
            async with asyncio.timeout(STARTED_SECONDS):
                await asyncio.gather(*(one.wait() for one in begun))
        except TimeoutError as error:
            names = ", ".join(stage.resource.name for stage in stages)
            raise InjectionFailedError(f"the neighbours {names} don't swing after {STARTED_SECONDS:g} s") from error
        yield
    finally:
        for swing in swings:
            swing.cancel()
        await asyncio.gather(*swings, return_exceptions=True)


async def _again(swing: Callable[[Stage, asyncio.Event], Awaitable[None]], stage: Stage, begun: asyncio.Event) -> None:
    while True:
        try:
            await swing(stage, begun)
        except (RedisError, psycopg.Error, InjectionFailedError, OSError, TimeoutError):
            await asyncio.sleep(AGAIN_SECONDS)  # the server was away; that it is, is another's to judge


async def _figures(stage: Stage, used: str, most: str) -> tuple[float, float]:
    values = (await stage.observe()).reading.values
    found = [values.get(name) for name in (used, most)]
    if not all(isinstance(value, int | float) for value in found):
        raise InjectionFailedError(f"{stage.resource.name}: {used} and {most} could not be read")
    return float(str(found[0])), float(str(found[1]))


async def _memory(stage: Stage, begun: asyncio.Event) -> None:
    """Pages of a catalogue that come and go."""
    high = stage.resource.thresholds.memory_percent - MARGIN_PERCENT
    pages: list[str] = []
    async with connection(stage, "application", "catalogue") as shop:
        try:
            while True:
                used, most = await _figures(stage, "used_memory_mib", "maxmemory_mib")
                await _store(shop, pages, int((most * high / 100 - used) * 2**20 / PAGE_BYTES))
                begun.set()
                await asyncio.sleep(SWING_SECONDS)
                count = int(most * SWING_PERCENT / 100 * 2**20 / PAGE_BYTES)
                dropped, pages[:] = pages[:count], pages[count:]
                if dropped:
                    await shop.unlink(*dropped)
                await asyncio.sleep(SWING_SECONDS)
        finally:
            if pages:
                await shop.unlink(*pages)


async def _store(shop: Redis, pages: list[str], count: int) -> None:
    first = int(pages[-1].rpartition(":")[2]) + 1 if pages else 0
    keys = [f"view:catalogue:{first + number}" for number in range(max(count, 0))]
    async with shop.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.set(key, "<li>Product</li>" * (PAGE_BYTES // 16), ex=PAGE_SECONDS)
        await pipeline.execute()
    pages.extend(keys)


async def _connections(stage: Stage, begun: asyncio.Event) -> None:
    """Sessions of a report that come and go, beside those that stay."""
    used, most = await _figures(stage, "connections_used", "connections_max")
    high = stage.resource.thresholds.connections_percent - MARGIN_PERCENT
    swing = int(most * SWING_PERCENT / 100)
    staying = int(most * high / 100 - used) - swing
    async with held_sessions(stage, "reporting", max(staying, 0), "SELECT 1"):
        while True:
            async with held_sessions(stage, "reporting-export", swing, "SELECT 1"):
                begun.set()
                await asyncio.sleep(SWING_SECONDS)
            await asyncio.sleep(SWING_SECONDS)


SWINGS: dict[Kind, Callable[[Stage, asyncio.Event], Awaitable[None]]] = {Kind.REDIS: _memory, Kind.POSTGRES: _connections}
