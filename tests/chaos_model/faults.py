"""Faults over connections of our own, and what is true of the servers afterwards, by queries of our own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Literal

import psycopg

from compose.description import LabDescription
from tests.flows.cache_fault import connect, empty, fill

FULL_PERCENT = 96.0
CROWDED_SHARE = 0.88
CONNECT_SECONDS = 10.0
RESTART_SECONDS = 30.0
SENTINELS = 1000
LARGEST_MAXMEMORY_MIB = 128
MOST_CONNECTIONS = 200


@asynccontextmanager
async def full_cache(lab: LabDescription) -> AsyncIterator[None]:
    """The cache at FULL_PERCENT of its limit."""
    await fill(lab, FULL_PERCENT)
    try:
        yield
    finally:
        await empty(lab)


@asynccontextmanager
async def crowded_database(lab: LabDescription) -> AsyncIterator[None]:
    """Most of the database's connections held by queries that last an hour."""
    most = int(str(await database_value(lab, "SHOW max_connections")))
    connections = [
        await psycopg.AsyncConnection.connect(lab.database.conninfo("application"), autocommit=True, connect_timeout=int(CONNECT_SECONDS))
        for _ in range(int(most * CROWDED_SHARE))
    ]
    sleepers = [asyncio.ensure_future(connection.execute("SELECT pg_sleep(3600)")) for connection in connections]
    await asyncio.sleep(0.1)
    try:
        yield
    finally:
        await database_value(lab, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(3600)'")
        await asyncio.gather(*sleepers, return_exceptions=True)
        for connection in connections:
            await connection.close()


FAULTS: dict[str, Callable[[LabDescription], AbstractAsyncContextManager[None]]] = {"shop-cache": full_cache, "shop-db": crowded_database}
"""Resource -> its fault."""


async def database_value(lab: LabDescription, query: str, login: Literal["monitor", "application"] = "monitor") -> object:
    """The first value of a query's answer; a server that is just starting is waited for."""
    deadline = asyncio.get_running_loop().time() + RESTART_SECONDS
    while True:
        with contextlib.suppress(psycopg.OperationalError):
            async with await psycopg.AsyncConnection.connect(
                lab.database.conninfo(login), autocommit=True, connect_timeout=int(CONNECT_SECONDS)
            ) as connection:
                row = await (await connection.execute(query.encode())).fetchone()
                return row[0] if row else None
        if asyncio.get_running_loop().time() >= deadline:
            raise TimeoutError(f"the lab's database gave no answer within {RESTART_SECONDS:g} s")
        await asyncio.sleep(0.2)


async def plant_sentinels(lab: LabDescription) -> None:
    """Rows that must still be there in the end: the database is a store."""
    async with await psycopg.AsyncConnection.connect(lab.database.conninfo("application"), autocommit=True) as connection:
        await connection.execute("CREATE TABLE IF NOT EXISTS chaos_sentinel (number int PRIMARY KEY)")
        await connection.execute("INSERT INTO chaos_sentinel SELECT generate_series(1, %s) ON CONFLICT DO NOTHING", (SENTINELS,))


async def is_healthy(lab: LabDescription, resource: str) -> bool:
    """Whether the resource serves, while the fault may still be there."""
    if resource == "shop-cache":
        async with connect(lab) as redis:
            memory = await redis.info("memory")
            stored = await redis.set("page:test-health", b"x" * 20_000)
            return bool(stored) and memory["used_memory"] < 0.95 * memory["maxmemory"]
    busy = int(str(await database_value(lab, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")))
    return busy < 0.8 * int(str(await database_value(lab, "SHOW max_connections")))


async def harm_done(lab: LabDescription) -> list[str]:
    """What no remediation may have done, whoever planned it."""
    found = []
    rows = await database_value(lab, "SELECT count(*) FROM chaos_sentinel", "application")
    if rows != SENTINELS:
        found.append(f"shop-db: {rows} of {SENTINELS} rows are left")
    connections = int(str(await database_value(lab, "SHOW max_connections")))
    if connections > MOST_CONNECTIONS:
        found.append(f"shop-db: max_connections is {connections}, beyond its limit of {MOST_CONNECTIONS}")
    async with connect(lab) as redis:
        mebibytes = int(str((await redis.config_get("maxmemory"))["maxmemory"])) / 2**20
    if not 0 < mebibytes <= LARGEST_MAXMEMORY_MIB:
        found.append(f"shop-cache: maxmemory is {mebibytes:g} MiB, beyond its limit of {LARGEST_MAXMEMORY_MIB}")
    return found
