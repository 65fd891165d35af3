"""How Redis is measured and judged: by the symptom, a write of 20 KB, and explained by the figures of INFO."""

import asyncio
import socket
import time
from collections.abc import Mapping
from typing import Any

from pydantic import JsonValue
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
from tasks.clients.causes import is_caused_by
from tasks.clients.redis_server import MIB, TURNED_AWAY, RedisClient, memory_percent
from tasks.core.declare import probe
from tasks.core.errors import ProbeBroken
from tasks.core.models import Finding, Health, Reading

ANSWER_SECONDS = 1.0
KEY = "evenkeel:probe"
KEY_SECONDS = 5
VALUE = "x" * 20 * 1024  # a tiny value is still accepted when the memory is full
CODES: dict[type[ResponseError], str] = {OutOfMemoryError: "OOM", ReadOnlyError: "READONLY"}
BUSY = "BUSY"


def judge(reading: Reading, resource: Resource) -> tuple[Finding, ...]:
    """What is wrong, from the values alone; a value that is missing is no finding."""
    values = reading.values
    if values.get("answers") == "refused":
        return (Finding(symptom="down", health=Health.FAILED, summary=f"Redis accepts no connection: {values.get('error')}"),)
    if values.get("answers") == "timeout":
        return (Finding(symptom="unresponsive", health=Health.FAILED, summary=f"Redis gave no answer within {ANSWER_SECONDS:g} s"),)
    if values.get("blocked_by_script") is True:
        return (Finding(symptom="unresponsive", health=Health.FAILED, summary="a script blocks Redis; every command is refused as BUSY"),)
    found = (_write(values), _memory(values, resource), _clients(values, resource), _persistence(values), _latency(values, resource))
    return tuple(finding for finding in found if finding is not None)


@probe(
    service=Kind.REDIS,
    title="Redis",
    judge=judge,
    headline="memory_percent",
    timeout_seconds=2,
    trends={"memory_percent": "memory_high", "clients_percent": "clients_high"},
)
async def measure(client: RedisClient, resource: Resource) -> Reading:
    """Measure Redis: INFO, and a write of 20 KB that is removed again, in one round trip.

    Values, from INFO (https://redis.io/docs/latest/commands/info/) unless said otherwise:
      answers            "yes", "refused" (no connection) or "timeout" (no answer within 1 s); `error` says more
      latency_seconds    time of the round trip
      used_memory_mib    used_memory          maxmemory_mib      maxmemory; 0: no limit
      memory_percent     their share; null without a limit
      maxmemory_policy   the same             evicted_keys       the same, since the start
      write_ok           whether SET of 20 KB with a time to live succeeded; `write_error` is the server's reply if not
      connected_clients, maxclients, blocked_clients, rejected_connections    the same
      clients_percent    connected_clients as a share of maxclients; clients_full: the server turned this probe away for it
      role               master or replica    master_link_status of a replica, else null
      loading            whether it is reading its data from disk
      rdb_last_bgsave_status, aof_enabled, aof_last_write_status              the same
      blocked_by_script  whether it answers BUSY

    Never repeats more than one broken connection, waits 1 s at most. ProbeBroken: the login is refused or lacks a permission, the
    name does not resolve, or what answers is no Redis.
    """
    arrived = time.monotonic()
    async with client.turn:
        if client.silent_at > arrived:
            # The one before asked the same server while this one waited.
            return Reading(values={"answers": "timeout"})
        started = time.monotonic()
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                values = await _ask(client, resource)
        except (TimeoutError, RedisTimeoutError):
            client.silent_at = time.monotonic()
            return Reading(values={"answers": "timeout", "latency_seconds": round(client.silent_at - started, 4)})
        return Reading(values={**values, "latency_seconds": round(time.monotonic() - started, 4)})


async def _ask(client: RedisClient, resource: Resource) -> dict[str, JsonValue]:
    try:
        info, write_error = await _exchange_once_more(client)
    except (AuthenticationError, AuthorizationError, NoPermissionError) as error:
        raise ProbeBroken(f"{resource.name}: the login `monitor` is refused or lacks a permission: {error}") from error
    except InvalidResponse as error:
        raise ProbeBroken(f"{resource.name}: what answers at {resource.address} is no Redis") from error
    except RedisConnectionError as error:
        if str(error) == TURNED_AWAY:
            return {"answers": "yes", "clients_full": True, "error": TURNED_AWAY}
        if is_caused_by(error, socket.gaierror):
            raise ProbeBroken(f"{resource.name}: the name in {resource.address} does not resolve") from error
        return {"answers": "refused", "error": str(error)}
    except ResponseError as error:
        if str(error).startswith(BUSY):
            return {"answers": "yes", "blocked_by_script": True, "error": str(error)}
        raise ProbeBroken(f"{resource.name}: INFO or the write was refused: {error}") from error
    return _values(info, write_error)


async def _exchange_once_more(client: RedisClient) -> tuple[dict[str, Any], str | None]:
    """The exchange, repeated once at once where a connection of earlier turns out to be gone."""
    try:
        return await _exchange(client)
    except (AuthenticationError, AuthorizationError):
        raise
    except RedisConnectionError:
        return await _exchange(client)


async def _exchange(client: RedisClient) -> tuple[dict[str, Any], str | None]:
    """INFO, and the error of the write if it failed."""
    async with client.redis.pipeline(transaction=False) as pipeline:
        pipeline.info()
        pipeline.set(KEY, VALUE, ex=KEY_SECONDS)
        pipeline.delete(KEY)
        try:
            info, written, _ = await pipeline.execute(raise_on_error=False)
        except BusyLoadingError as error:
            # A server that loads its data refuses the write, and the client gives up the whole round trip for it.
            return await client.redis.info(), f"LOADING {error}"
    for reply in (info, written):
        if isinstance(reply, NoPermissionError):
            raise reply
    if isinstance(info, ResponseError):
        raise info
    if isinstance(written, ResponseError):
        return info, " ".join(filter(None, (CODES.get(type(written)), str(written))))
    return info, None


def _values(info: Mapping[str, Any], write_error: str | None) -> dict[str, JsonValue]:
    used, limit = info["used_memory"], info["maxmemory"]
    connected, most = info["connected_clients"], info.get("maxclients")
    return {
        "answers": "yes",
        "used_memory_mib": round(used / MIB, 2),
        "maxmemory_mib": round(limit / MIB, 2),
        "memory_percent": memory_percent(used, limit),
        "maxmemory_policy": info.get("maxmemory_policy"),
        "evicted_keys": info.get("evicted_keys"),
        "write_ok": write_error is None,
        "write_error": write_error,
        "connected_clients": connected,
        "maxclients": most,
        "clients_percent": round(100 * connected / most, 2) if most else None,
        "clients_full": False,
        "blocked_clients": info.get("blocked_clients"),
        "rejected_connections": info.get("rejected_connections"),
        "role": "replica" if info.get("role") == "slave" else info.get("role"),
        "master_link_status": info.get("master_link_status"),
        "loading": bool(info.get("loading")),
        "rdb_last_bgsave_status": info.get("rdb_last_bgsave_status"),
        "aof_enabled": bool(info.get("aof_enabled")),
        "aof_last_write_status": info.get("aof_last_write_status"),
        "blocked_by_script": False,
    }


def _number(values: Mapping[str, JsonValue], name: str) -> float | None:
    value = values.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _write(values: Mapping[str, JsonValue]) -> Finding | None:
    if values.get("write_ok") is not False:
        return None
    return Finding(symptom="write_refused", health=Health.FAILED, summary=f"a write of 20 KB is refused: {values.get('write_error')}")


def _memory(values: Mapping[str, JsonValue], resource: Resource) -> Finding | None:
    share, threshold = _number(values, "memory_percent"), resource.thresholds.memory_percent
    if share is None or not share >= threshold:
        return None
    used, limit = values.get("used_memory_mib"), values.get("maxmemory_mib")
    summary = f"memory at {share:.1f} % of maxmemory ({used} of {limit} MiB, threshold {threshold:g} %)"
    return Finding(symptom="memory_high", health=Health.DEGRADED, summary=summary)


def _clients(values: Mapping[str, JsonValue], resource: Resource) -> Finding | None:
    if values.get("clients_full") is True:
        return Finding(symptom="clients_high", health=Health.FAILED, summary="Redis turns new clients away: maxclients is reached")
    share, threshold = _number(values, "clients_percent"), resource.thresholds.clients_percent
    if share is None or not share >= threshold:
        return None
    connected, most = values.get("connected_clients"), values.get("maxclients")
    summary = f"clients at {share:.1f} % of maxclients ({connected} of {most}, threshold {threshold:g} %)"
    return Finding(symptom="clients_high", health=Health.DEGRADED, summary=summary)


def _persistence(values: Mapping[str, JsonValue]) -> Finding | None:
    failing = [name for name in ("rdb_last_bgsave_status", "aof_last_write_status") if values.get(name) not in (None, "ok")]
    if not failing:
        return None
    summary = "data is not reaching the disk: " + ", ".join(f"{name} is {values[name]}" for name in failing)
    return Finding(symptom="persistence_failing", health=Health.DEGRADED, summary=summary)


def _latency(values: Mapping[str, JsonValue], resource: Resource) -> Finding | None:
    latency, threshold = _number(values, "latency_seconds"), resource.thresholds.latency_seconds
    if latency is None or not latency >= threshold:
        return None
    return Finding(symptom="slow", health=Health.DEGRADED, summary=f"Redis took {latency:.3f} s to answer (threshold {threshold:g} s)")
