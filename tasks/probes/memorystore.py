"""Memorystore: its state by the API, its memory and a write by its own Redis, and by Cloud Monitoring where there is no way to it."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue
from redis.asyncio import Redis
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    InvalidResponse,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from blocks.schema import Kind, Resource
from tasks.clients.memorystore import READY, MemorystoreClient, RedisInstance
from tasks.clients.redis_server import MIB, TURNED_AWAY, memory_percent
from tasks.core.declare import probe
from tasks.core.errors import EvenkeelError, NotApplicable, ProbeBroken, Unreachable
from tasks.core.memorystore_judgement import judge
from tasks.core.models import Reading

ANSWER_SECONDS = 1.5
METRIC_SECONDS = 4.0
KEY = "evenkeel:probe"
KEY_SECONDS = 5
VALUE = "x" * 20 * 1024  # a tiny value is still accepted when the memory is full
CODES: dict[type[ResponseError], str] = {OutOfMemoryError: "OOM", ReadOnlyError: "READONLY"}
USAGE, CLIENTS = "redis.googleapis.com/stats/memory/usage_ratio", "redis.googleapis.com/clients/connected"


@probe(
    service=Kind.MEMORYSTORE,
    title="Memorystore for Redis",
    judge=judge,
    headline="memory_percent",
    timeout_seconds=9,
    trends={"memory_percent": "memory_high", "clients_percent": "clients_high"},
    permissions={"redis.instances.list", "redis.instances.get", "monitoring.timeSeries.list"},
)
async def measure(client: MemorystoreClient, resource: Resource) -> Reading:
    """Measure Memorystore: state and tier by the API, INFO and a write of 20 KB by Redis, else Cloud Monitoring.

    Values; `sources` says where the others come from, and how old they are:
    - `state`, `message`, `tier`, `memory_gib`, `region`, `has_auth`, `maxmemory_policy`: of the API. In another state than READY there is
      no more than that.
    - `answers`: "yes", "refused" or "timeout" (none within 1.5 s); `error` says more. `latency_seconds` of the round trip.
    - `used_memory_mib`, `maxmemory_mib`, `memory_percent` their share, `connected_clients`, `maxclients`, `clients_percent`,
      `evicted_keys`: of INFO. `write_ok`: whether SET of 20 KB with a time to live succeeded, else `write_error`.
    - `data_plane_error`: why the server was not asked. Then `memory_percent` and `connected_clients` are Cloud Monitoring's newest point of
      the last 15 minutes, with `memory_percent_age_seconds`; `monitoring_error`: why it gave none.

    Raises ProbeBroken where there is no such instance, the host key or the AUTH string is wrong; Unreachable or ToolFailed where the API
    can't be asked.
    """
    instance = await client.instance()
    values = _of_the_api(instance)
    if instance.state != READY:
        return Reading(values=values)
    data = await _data_plane(client, resource, instance)
    if "answers" not in data:
        data |= await _seen_from_outside(client, instance)
    return Reading(values=values | data)


def _of_the_api(instance: RedisInstance) -> dict[str, JsonValue]:
    return {
        "state": instance.state,
        "message": instance.message or None,
        "tier": instance.tier,
        "memory_gib": instance.memory_gib,
        "region": instance.region,
        "has_auth": instance.has_auth,
        "maxmemory_policy": instance.policy,
    }


async def _data_plane(client: MemorystoreClient, resource: Resource, instance: RedisInstance) -> dict[str, JsonValue]:
    """What the server says; `answers` only where its answer, or its silence, is its own."""
    try:
        redis = await client.redis(instance)
    except (Unreachable, NotApplicable) as error:
        return {"data_plane_error": str(error)}
    values = await _asked(redis, resource)
    if values["answers"] != "yes":
        obstacle = await client.way.obstacle()
        if obstacle:
            return {"data_plane_error": obstacle}
        # What is done to an instance shows in its state, which may be newer than what was listed.
        values |= _of_the_api(await client.instance(fresh=True))
    how = f"Redis, {client.way.said}"
    return values | {"sources": {"memory_percent": how, "clients": how}}


async def _asked(redis: Redis, resource: Resource) -> dict[str, JsonValue]:
    started = time.monotonic()
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            values = await _exchange_again(redis)
    except (AuthenticationError, AuthorizationError, NoPermissionError) as error:
        raise ProbeBroken(f"{resource.name}: the AUTH string in logins.monitor is refused: {error}") from error
    except InvalidResponse as error:
        raise ProbeBroken(f"{resource.name}: what answers at its address is no Redis") from error
    except (TimeoutError, RedisTimeoutError):
        return {"answers": "timeout", "error": f"none within {ANSWER_SECONDS:g} s"}
    except RedisConnectionError as error:
        if str(error) == TURNED_AWAY:
            return {"answers": "yes", "clients_full": True, "error": TURNED_AWAY}
        return {"answers": "refused", "error": str(error)}
    except ResponseError as error:
        raise ProbeBroken(f"{resource.name}: INFO or the write was refused: {error}") from error
    return {**values, "latency_seconds": round(time.monotonic() - started, 4)}


async def _exchange_again(redis: Redis) -> dict[str, JsonValue]:
    """The exchange, repeated once at once where a connection of earlier turns out to be gone."""
    try:
        return await _exchange(redis)
    except (AuthenticationError, AuthorizationError):
        raise
    except RedisConnectionError:
        return await _exchange(redis)


async def _exchange(redis: Redis) -> dict[str, JsonValue]:
    async with redis.pipeline(transaction=False) as pipeline:
        pipeline.info()
        pipeline.set(KEY, VALUE, ex=KEY_SECONDS)
        pipeline.delete(KEY)
        try:
            info, written, _ = await pipeline.execute(raise_on_error=False)
        except BusyLoadingError as error:
            return {**_of_info(await redis.info()), "write_ok": False, "write_error": f"LOADING {error}"}
    if isinstance(info, ResponseError):
        raise info
    refusal = " ".join(filter(None, (CODES.get(type(written)), str(written)))) if isinstance(written, ResponseError) else None
    return {**_of_info(info), "write_ok": refusal is None, "write_error": refusal}


def _of_info(info: Mapping[str, Any]) -> dict[str, JsonValue]:
    used, limit = info["used_memory"] - info.get("mem_not_counted_for_evict", 0), info["maxmemory"]
    connected, most = info["connected_clients"], info.get("maxclients")
    return {
        "answers": "yes",
        "used_memory_mib": round(used / MIB, 2),
        "maxmemory_mib": round(limit / MIB, 2),
        "memory_percent": memory_percent(used, limit),
        "connected_clients": connected,
        "maxclients": most,
        "clients_percent": round(100 * connected / most, 2) if most else None,
        "clients_full": False,
        "evicted_keys": info.get("evicted_keys"),
    }


async def _seen_from_outside(client: MemorystoreClient, instance: RedisInstance) -> dict[str, JsonValue]:
    """What Cloud Monitoring has of it."""
    try:
        async with asyncio.timeout(METRIC_SECONDS):
            usage, clients = await asyncio.gather(*(client.cloud.metrics(Kind.MEMORYSTORE, metric) for metric in (USAGE, CLIENTS)))
    except (EvenkeelError, TimeoutError) as error:
        return {"monitoring_error": str(error) or f"Cloud Monitoring gave no answer within {METRIC_SECONDS:g} s"}
    values: dict[str, JsonValue] = {}
    sources: dict[str, JsonValue] = {}
    memory, connected = usage.get(instance.path), clients.get(instance.path)
    if memory is not None:
        values |= {"memory_percent": round(100 * memory.value, 2), "memory_percent_age_seconds": memory.age_seconds}
        sources["memory_percent"] = f"Cloud Monitoring, {memory.age_seconds:.0f} s old"
    if connected is not None:
        values |= {"connected_clients": int(connected.value)}
        sources["clients"] = f"Cloud Monitoring, {connected.age_seconds:.0f} s old"
    return {**values, "sources": sources}
