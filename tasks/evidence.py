"""What a scenario is judged by, read apart from monitor and tools: the shop's data, its traffic, the neighbours' processes."""

import asyncio
import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import httpx

from blocks.model import Model
from blocks.schema import Inventory, Kind, Resource, Shop
from tasks.clients.nginx import NginxClient
from tasks.clients.postgres import PostgresClient
from tasks.clients.redis_server import RedisClient
from tasks.connecting import Live

READ_SECONDS = 10.0
# Orders and customers' carts are never changed by the shop's traffic; rows that it adds lie above the highest id.
TABLES = {
    "products": "SELECT count(*), md5(string_agg(p::text, '|' ORDER BY p.id)) FROM products p",
    "orders": "SELECT count(*), md5(string_agg(o::text, '|' ORDER BY o.id)) FROM orders o WHERE o.id <= %(last)s",
    "order_lines": (
        "SELECT count(*), md5(string_agg(l::text, '|' ORDER BY l.order_id, l.product_id)) FROM order_lines l WHERE l.order_id <= %(last)s"
    ),
}
CARTS = "cart:customer-*"
Carts = dict[Any, dict[Any, Any]]
"""Key -> product -> quantity, in the client's own types."""
UNDER_WAY = 50
"""Orders below the highest id that may not be committed yet."""
SETTINGS = "SELECT name, setting FROM pg_settings WHERE source NOT IN ('session', 'client', 'override') AND context <> 'internal'"


class Fingerprint(Model):
    """Checksums of the shop's data as they stand, over what nothing should change."""

    last_order: int
    tables: dict[str, str]
    carts: int
    carts_checksum: str


def harm(before: Fingerprint, after: Fingerprint) -> tuple[str, ...]:
    """What of the data is not what it was, one text each; what was read only once is not compared."""
    now = after.tables
    told = [f"{table}: {was}; now {now[table]}" for table, was in before.tables.items() if now.get(table, was) != was]
    were_read = before.carts_checksum and after.carts_checksum
    if were_read and (before.carts, before.carts_checksum) != (after.carts, after.carts_checksum):
        told.append(f"customers' carts: {before.carts}; now {after.carts}")
    return tuple(told)


class Traffic(Model):
    """What the shop's visitors met in a time."""

    requests: int
    failures: int


async def fingerprint(live: Live, last_order: int | None = None, besides: Collection[str] = ()) -> Fingerprint:
    """The shop's data's checksums; `last_order` repeats an earlier fingerprint's range, so that new orders don't count.

    A lab without a shop has no such data: what a fault does to its data is for the scenario to check. Nor are the resources read that
    `besides` names.
    """
    last, tables, carts, checksum = last_order or 0, dict[str, str](), 0, ""
    if live.inventory.shop is not None:
        database, cache = _only(live.inventory, Kind.POSTGRES), _only(live.inventory, Kind.REDIS)
        async with asyncio.timeout(READ_SECONDS):
            if database.name not in besides:
                last, tables = await _tables(live, database, last_order)
            if cache.name not in besides:
                carts, checksum = await _carts(live)
    return Fingerprint(last_order=last, tables=tables, carts=carts, carts_checksum=checksum)


async def _tables(live: Live, database: Resource, last_order: int | None) -> tuple[int, dict[str, str]]:
    client = live.tool_client(database)
    assert isinstance(client, PostgresClient)
    async with await client.connect_as_application() as connection:
        if last_order is None:
            row = await (await connection.execute("SELECT coalesce(max(id), 0) FROM orders")).fetchone()
            last_order = max(int(row[0]) - UNDER_WAY, 0) if row else 0
        found: dict[str, str] = {}
        for table, query in TABLES.items():
            row = await (await connection.execute(query.encode(), {"last": last_order})).fetchone()
            found[table] = "" if row is None else f"{row[0]} rows, {row[1]}"
    return last_order, found


async def _carts(live: Live) -> tuple[int, str]:
    client = live.tool_client(_only(live.inventory, Kind.REDIS))
    assert isinstance(client, RedisClient)
    keys = sorted([key async for key in client.redis.scan_iter(match=CARTS, count=1000)])
    digest = hashlib.sha256()
    for key in keys:
        digest.update(json.dumps([key, sorted((await client.redis.hgetall(key)).items())]).encode())
    return len(keys), digest.hexdigest()


async def carts_of(live: Live) -> Carts:
    """The customers' carts as they are stored; none in a lab without a shop."""
    if live.inventory.shop is None:
        return {}
    client = live.tool_client(_only(live.inventory, Kind.REDIS))
    assert isinstance(client, RedisClient)
    async with asyncio.timeout(READ_SECONDS):
        return {key: await client.redis.hgetall(key) async for key in client.redis.scan_iter(match=CARTS, count=1000)}


async def put_back(live: Live, carts: Carts) -> None:
    """Store the carts as they were where they are not so any more: the next trial begins with whole data."""
    client = live.tool_client(_only(live.inventory, Kind.REDIS))
    assert isinstance(client, RedisClient)
    now = await carts_of(live)
    async with asyncio.timeout(READ_SECONDS), client.redis.pipeline(transaction=True) as pipeline:
        for key in now.keys() - carts.keys():
            pipeline.delete(key)
        for key, lines in carts.items():
            if now.get(key) != lines:
                pipeline.delete(key)
                pipeline.hset(key, mapping=lines)
        await pipeline.execute()


def _only(inventory: Inventory, kind: Kind) -> Resource:
    return next(resource for resource in inventory.resources if resource.kind is kind)


async def traffic_since(shop: Shop | None, since: float) -> Traffic:
    """Requests and failures since an epoch second, from the traffic generator's own counters; none where there is no shop."""
    if shop is None:
        return Traffic(requests=0, failures=0)
    async with httpx.AsyncClient(trust_env=False, timeout=READ_SECONDS) as client:
        response = await client.get(f"{shop.traffic_url.rstrip('/')}/stats", params={"since": since})
        response.raise_for_status()
        stats = response.json()
    return Traffic(requests=stats["requests"], failures=stats["failures"])


async def surroundings(live: Live, besides: Collection[str]) -> dict[str, dict[str, str]]:
    """Start and settings of every other resource, so that a neighbour that was restarted or changed shows."""
    others = [resource for resource in live.inventory.resources if resource.name not in besides]
    async with asyncio.timeout(READ_SECONDS):
        found = await asyncio.gather(*(_as_it_stands(live, resource) for resource in others))
    return {resource.name: state for resource, state in zip(others, found, strict=True)}


async def _as_it_stands(live: Live, resource: Resource) -> dict[str, str]:
    client = live.tool_client(resource)
    state: dict[str, str] = {}
    service = getattr(client, "runtime", None)
    if service is not None:
        state["start"] = str((await service.status()).started_at)
    if isinstance(client, RedisClient):
        state["settings"] = _checksum({str(name): str(value) for name, value in (await client.redis.config_get("*")).items()})
    elif isinstance(client, PostgresClient):
        rows = await client.ask(SETTINGS)
        state["settings"] = _checksum({row["name"]: row["setting"] for row in rows})
    elif isinstance(client, NginxClient) and resource.config_path is not None:
        state["settings"] = _checksum({"file": await asyncio.to_thread(Path(resource.config_path).read_text, encoding="utf-8")})
    return state


def _checksum(values: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(sorted(values.items())).encode()).hexdigest()


def changes(before: Mapping[str, Mapping[str, str]], after: Mapping[str, Mapping[str, str]]) -> tuple[str, ...]:
    """What differs between two surroundings, one text each."""
    told: list[str] = []
    for name, was in before.items():
        now = after.get(name, {})
        if now.get("start") != was.get("start"):
            told.append(f"{name} was restarted")
        if now.get("settings") != was.get("settings"):
            told.append(f"{name} has other settings than before")
    return tuple(told)
