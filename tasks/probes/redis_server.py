"""How Redis is measured: by the symptom, a write of 20 KB, and explained by the figures of INFO."""

import asyncio
import socket
import time
from collections.abc import Mapping
from typing import Any

import psutil
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

from blocks.runtimes import ProcessRuntime
from blocks.schema import Kind, Resource
from tasks.clients.causes import is_caused_by
from tasks.clients.login import Login
from tasks.clients.redis_server import MIB, TURNED_AWAY, RedisClient, memory_percent
from tasks.clients.redis_sessions import largest_groups, sessions_of
from tasks.core.declare import probe
from tasks.core.errors import EvenkeelError, NotApplicable, ProbeBroken
from tasks.core.models import Reading
from tasks.core.redis_config import RESTORABLE, broken_aof, digest, drift
from tasks.core.redis_judgement import ANSWER_SECONDS, judge

LOOK_SECONDS = 0.4
"""For what explains a server that does not answer."""
LOG_LINES = 80
TURNED_AWAY_TRIES = 4
TURNED_AWAY_PAUSE_SECONDS = 0.05
KEY = "evenkeel:probe"
KEY_SECONDS = 5
VALUE = "x" * 20 * 1024  # a tiny value is still accepted when the memory is full
CODES: dict[type[ResponseError], str] = {OutOfMemoryError: "OOM", ReadOnlyError: "READONLY"}
BUSY = "BUSY"


@probe(
    service=Kind.REDIS,
    title="Redis",
    judge=judge,
    headline="memory_percent",
    timeout_seconds=2,
    trends={"memory_percent": "memory_high", "clients_percent": "clients_high"},
)
async def measure(client: RedisClient, resource: Resource) -> Reading:
    """Measure Redis: INFO, a write of 20 KB that is removed again, and the application's login, in one round trip.

    Values, from INFO (https://redis.io/docs/latest/commands/info/) unless said otherwise:
      answers            "yes", "refused" (no connection) or "timeout" (no answer within 1 s); `error` says more
      latency_seconds    time of the round trip
      used_memory_mib    used_memory          maxmemory_mib      maxmemory; 0: no limit
      memory_percent     their share; null without a limit
      maxmemory_policy   the same             evicted_keys       the same, since the start
      write_ok           whether SET of 20 KB with a time to live succeeded; `write_error` is the server's reply if not
      connected_clients, maxclients, blocked_clients, rejected_connections    the same
      clients_percent    connected_clients as a share of maxclients; clients_full: the server turned this probe away for it
      role               master or replica    master, master_link_status of a replica, else null
      loading            whether it is reading its data from disk
      rdb_last_bgsave_status, rdb_changes_since_last_save, aof_enabled, aof_last_write_status    the same
      blocked_by_script  whether it answers BUSY
      application_login  of the inventory's `application` (ACL GETUSER): ok, unknown, disabled or rejected (another password);
                         null where it can't be told. application_user: its name
    Only where something is wrong:
      top_clients        the largest groups of ordinary clients (CLIENT LIST), when clients_percent is at its threshold
      drift              settings that are not as config_path says (CONFIG GET): name -> now, declared; when writes, saving or clients
                         are in trouble. drift_error: why that can't be told
      broken_aof         of a server that is down: the append-only file that its last start could not read, as its log tells
      process_state      of a silent one that runs as a process here: running (it computes), stopped, sleeping ...

    Never repeats more than one broken connection, waits 1 s at most for the server. ProbeBroken: the login is refused or lacks a
    permission, the name does not resolve, or what answers is no Redis.
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
            latency = round(client.silent_at - started, 4)
            return Reading(values={"answers": "timeout", "latency_seconds": latency, **await _process_state(client)})
        latency = round(time.monotonic() - started, 4)
        if values["answers"] == "refused":
            values |= await _failed_start(client)
        return Reading(values={**values, "latency_seconds": latency})


async def _ask(client: RedisClient, resource: Resource) -> dict[str, JsonValue]:
    try:
        info, write_error, login = await _exchange_again(client)
        values = _values(info, write_error) | login
        return values | await _explained(client, resource, values)
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


Exchanged = tuple[dict[str, Any], str | None, dict[str, JsonValue]]
"""INFO, the error of the write if it failed, and what is told of the application's login."""


async def _exchange_again(client: RedisClient) -> Exchanged:
    """The exchange, repeated once at once where a connection of earlier turns out to be gone.

    Turned away for maxclients it is tried for a moment: whoever else uses this client may have its connection just then.
    """
    for _ in range(TURNED_AWAY_TRIES):
        try:
            return await _exchange(client)
        except (AuthenticationError, AuthorizationError):
            raise
        except RedisConnectionError as error:
            if str(error) != TURNED_AWAY:
                break
            await asyncio.sleep(TURNED_AWAY_PAUSE_SECONDS)
    return await _exchange(client)


async def _exchange(client: RedisClient) -> Exchanged:
    async with client.redis.pipeline(transaction=False) as pipeline:
        pipeline.info()
        pipeline.set(KEY, VALUE, ex=KEY_SECONDS)
        pipeline.delete(KEY)
        if client.application is not None:
            pipeline.acl_getuser(client.application.username)
        try:
            info, written, _, *users = await pipeline.execute(raise_on_error=False)
        except BusyLoadingError as error:
            # A server that loads its data refuses the write, and the client gives up the whole round trip for it.
            return await client.redis.info(), f"LOADING {error}", {}
    for reply in (info, written):
        if isinstance(reply, NoPermissionError):
            raise reply
    if isinstance(info, ResponseError):
        raise info
    login = _login(client.application, users[0]) if client.application is not None else {}
    if isinstance(written, ResponseError):
        return info, " ".join(filter(None, (CODES.get(type(written)), str(written)))), login
    return info, None, login


def _login(application: Login, user: Any) -> dict[str, JsonValue]:
    """What ACL GETUSER says of the application's login; the digests of its passwords stay here."""
    state: str | None = "ok"
    if isinstance(user, Exception):
        state = None
    elif user is None:
        state = "unknown"
    elif not user["enabled"]:
        state = "disabled"
    elif "nopass" not in user["flags"] and digest(application.password) not in user["passwords"]:
        state = "rejected"
    return {"application_user": application.username, "application_login": state}


async def _explained(client: RedisClient, resource: Resource, values: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Who holds the clients, and what was changed at run time, where that may be the reason of what is wrong."""
    share = values["clients_percent"]
    crowded = isinstance(share, float) and share >= resource.thresholds.clients_percent
    saved = values["rdb_last_bgsave_status"] in {None, "ok"} and values["aof_last_write_status"] in {None, "ok"}
    if values["loading"] or (values["write_ok"] and saved and not crowded):
        return {}
    async with client.redis.pipeline(transaction=False) as pipeline:
        pipeline.config_get(*RESTORABLE)
        if crowded:
            pipeline.client_id()
            pipeline.client_list()
        running, *listed = await pipeline.execute(raise_on_error=False)
    told = await _drift(client, running)
    if listed and not any(isinstance(reply, Exception) for reply in listed):
        told["top_clients"] = largest_groups(sessions_of(listed[1], listed[0]))
    return told


async def _drift(client: RedisClient, running: Any) -> dict[str, JsonValue]:
    if isinstance(running, Exception):
        return {"drift_error": str(running)}
    try:
        text = await asyncio.to_thread(client.configuration)
    except NotApplicable as reason:
        return {"drift_error": str(reason)}
    return {"drift": {name: dict(values) for name, values in drift(text, running).items()}}


async def _failed_start(client: RedisClient) -> dict[str, JsonValue]:
    if client.runtime is None:
        return {}
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            name = broken_aof(await client.runtime.log(LOG_LINES))
    except (EvenkeelError, TimeoutError) as error:
        return {"log_error": str(error) or "no answer in time"}
    return {} if name is None else {"broken_aof": name}


async def _process_state(client: RedisClient) -> dict[str, JsonValue]:
    if client.runtime is None or not isinstance(client.resource.runtime, ProcessRuntime):
        return {}
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            pid = (await client.runtime.status()).pid
        return {} if pid is None else {"process_state": psutil.Process(pid).status()}
    except (EvenkeelError, TimeoutError, psutil.Error) as error:
        return {"process_error": str(error) or "no answer in time"}


def _values(info: Mapping[str, Any], write_error: str | None) -> dict[str, JsonValue]:
    used, limit = info["used_memory"], info["maxmemory"]
    connected, most = info["connected_clients"], info.get("maxclients")
    is_replica = info.get("role") == "slave"
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
        "role": "replica" if is_replica else info.get("role"),
        "master": f"{info.get('master_host')}:{info.get('master_port')}" if is_replica else None,
        "master_link_status": info.get("master_link_status"),
        "loading": bool(info.get("loading")),
        "rdb_last_bgsave_status": info.get("rdb_last_bgsave_status"),
        "rdb_changes_since_last_save": info.get("rdb_changes_since_last_save"),
        "aof_enabled": bool(info.get("aof_enabled")),
        "aof_last_write_status": info.get("aof_last_write_status"),
        "blocked_by_script": False,
    }
