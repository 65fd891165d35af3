"""Tools for the process that runs Redis or Valkey."""

import asyncio
import time
from typing import Any

from pydantic import JsonValue
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, AuthorizationError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from blocks.schema import Kind, Risk, Role
from tasks.clients.polling import poll
from tasks.clients.redis_server import TURNED_AWAY, RedisClient, alone, key_counts, memory_values, translated
from tasks.clients.runtime import Runtime, ServiceStatus, require_runtime
from tasks.core.declare import NoArgs, tool
from tasks.core.errors import NotApplicable, OutcomeUnknown, ToolFailed
from tasks.core.models import Change

ANSWER_SECONDS = 1.0
JUST_STARTED_SECONDS = 5.0
SAVE_SECONDS = 30.0
LOAD_SECONDS = 15.0


@tool(
    service=Kind.REDIS,
    risk=Risk.DISRUPTIVE,
    title="Restart Redis",
    timeout_seconds=65,
    symptoms={"down", "unresponsive"},
    after=("redis_script_kill",),
)
async def redis_restart(client: RedisClient, _args: NoArgs) -> Change:
    """Save the data where persistence is configured, restart the server, and see it load its keys.

    A server that is down is started. Restarting frees no memory: the saved keys come back. NotApplicable, so that a store loses nothing:
    it keeps its keys in memory only, or it runs and does not answer, so that nothing can be saved. NotApplicable also while it loads its
    data, and without a runtime. ToolFailed, and no restart: a store's save failed. ToolFailed after the restart: it came back empty.
    """
    runtime = require_runtime(client.runtime, client.resource.name)
    info = await _ask(client)
    if info is None:
        status = await runtime.status()
        await _start_or_force(client, runtime, status)
        after = await loaded(client)
        return Change(before={"state": status.state, "pid": status.pid}, after=await _values(runtime, after))
    if info.get("loading"):
        raise NotApplicable(f"{client.resource.name}: the server is still loading its data; a restart would begin anew")
    before = await _values(runtime, info)
    async with alone(client) as own:
        saved = await _save(client, own, info)
        await runtime.restart()
    after = await loaded(client)
    if after["run_id"] == info["run_id"]:
        raise ToolFailed(f"{client.resource.name}: the same server process answers as before (run_id {info['run_id']})")
    keys, expiring = key_counts(info)
    if saved and keys > expiring and key_counts(after)[0] == 0:
        raise ToolFailed(f"{client.resource.name}: came back without any of its {keys} keys, although they were saved")
    return Change(before=before, after={**await _values(runtime, after), "saved": saved})


async def _ask(client: RedisClient) -> dict[str, Any] | None:
    """INFO of the server; None where it refuses connections or does not answer within 1 s."""
    with translated(client.resource, sent=False):
        # Twice: the first may meet a connection of earlier that is gone.
        for _ in range(2):
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    info: dict[str, Any] = await client.redis.info()
            except (AuthenticationError, AuthorizationError):
                raise
            except RedisConnectionError as error:
                if str(error) == TURNED_AWAY:
                    raise NotApplicable(f"{client.resource.name}: {TURNED_AWAY}, so its data can't be saved first") from error
            except (TimeoutError, RedisTimeoutError):
                return None
            else:
                return info
    return None


async def _start_or_force(client: RedisClient, runtime: Runtime, status: ServiceStatus) -> None:
    """Start a server that is down; restart one that runs and does not answer, unless that could lose a store's data.

    One that was just started, by another tool perhaps, is left to come up.
    """
    if status.state != "running":
        await runtime.start()
    elif status.started_at is not None and time.time() - status.started_at < JUST_STARTED_SECONDS:
        return
    elif client.resource.role is Role.STORE:
        name = client.resource.name
        raise NotApplicable(f"{name}: runs and does not answer, so its data can't be saved first, and it is a store")
    else:
        await runtime.restart()


async def _save(client: RedisClient, own: Redis, info: dict[str, Any]) -> bool:
    """Whether the data is on disk: saved now where save points are configured, or kept by the append-only file."""
    name, is_store = client.resource.name, client.resource.role is Role.STORE
    with translated(client.resource, sent=False):
        points = (await own.config_get("save"))["save"]
    appends = bool(info.get("aof_enabled")) and info.get("aof_last_write_status") == "ok"
    if not points:
        if is_store and not appends and key_counts(info)[0]:
            raise NotApplicable(f"{name}: keeps its keys in memory only (no save points, no append-only file), and it is a store")
        return appends
    saved = await _save_snapshot(client, own)
    if is_store and not saved:
        raise ToolFailed(f"{name}: the save before the restart failed, so it was not restarted; see the server's log")
    return saved


async def _save_snapshot(client: RedisClient, own: Redis) -> bool:
    async def settled() -> bool | None:
        info = await own.info("persistence")
        return None if info["rdb_bgsave_in_progress"] else info["rdb_last_bgsave_status"] == "ok"

    with translated(client.resource, sent=False):
        # One that is under way may have begun before the last writes.
        await poll(settled, seconds=SAVE_SECONDS / 2)
        try:
            await own.bgsave(schedule=False)
        except ResponseError:
            return False
        return bool(await poll(settled, seconds=SAVE_SECONDS / 2))


async def loaded(client: RedisClient) -> dict[str, Any]:
    """INFO of the server once it answers and has loaded its keys."""

    async def with_data() -> dict[str, Any] | None:
        try:
            info: dict[str, Any] = await client.redis.info()
        except (AuthenticationError, AuthorizationError):
            raise
        except (RedisConnectionError, RedisTimeoutError):
            return None
        return None if info.get("loading") else info

    with translated(client.resource, sent=True):
        info = await poll(with_data, seconds=LOAD_SECONDS)
    if info is None:
        raise OutcomeUnknown(f"{client.resource.name}: restarted, and does not answer with its data loaded after {LOAD_SECONDS:g} s")
    return info


async def _values(runtime: Runtime, info: dict[str, Any]) -> dict[str, JsonValue]:
    status = await runtime.status()
    return {"state": status.state, "pid": status.pid, "run_id": info["run_id"], **memory_values(info)}
