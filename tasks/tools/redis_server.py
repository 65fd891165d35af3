"""Tools for the memory of Redis and Valkey. Each reads its effect back from the server.

What they have in common: NotApplicable while another tool changes the same server, or on a read-only replica; Unreachable where nothing
could be sent; OutcomeUnknown where the reply was lost; ToolFailed where the server refused. Changes of the configuration are made with
CONFIG SET and, where the server has a configuration file, written into it with CONFIG REWRITE, so that they survive a restart:
`persisted` in the reading after tells which. CONFIG REWRITE also writes down what others changed at run time.
"""

from typing import Any, Literal, get_args

from pydantic import Field, JsonValue
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from blocks.schema import Kind, Risk, Role
from tasks.clients.polling import poll
from tasks.clients.redis_server import MIB, RedisClient, alone, memory_values, read_info, translated
from tasks.core.declare import Growth, NoArgs, ToolArgs, tool
from tasks.core.errors import NotApplicable, ToolFailed
from tasks.core.models import Change

FREE_SECONDS = 5.0
EVICT_SECONDS = 25.0
IDLE_ROUNDS = 20
"""So often may a round evict nothing before the rest counts as not evictable."""
NUDGES = 20
"""Commands for which the server evicts, each for at most 0.5 ms at its default tenacity, before the limit is back."""

EvictionPolicy = Literal[
    "noeviction",
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
    "volatile-lru",
    "volatile-lfu",
    "volatile-random",
    "volatile-ttl",
]


class SetMaxmemory(ToolArgs):
    """Arguments of redis_set_maxmemory."""

    mebibytes: float = Field(ge=1, le=1024 * 1024, description="New maxmemory in MiB.")


class SetEvictionPolicy(ToolArgs):
    """Arguments of redis_set_eviction_policy."""

    policy: EvictionPolicy = Field(description="New maxmemory-policy.")


class EvictTo(ToolArgs):
    """Arguments of redis_evict_to."""

    percent: int = Field(ge=10, le=95, description="Share of maxmemory that may stay in use, in percent.")


@tool(service=Kind.REDIS, risk=Risk.DISRUPTIVE, title="Hand free memory back", symptoms={"memory_high", "persistence_failing"})
async def redis_memory_purge(client: RedisClient, _args: NoArgs) -> Change:
    """Hand freed memory back to the operating system; the share of maxmemory stays as it is.

    MEMORY PURGE lowers the resident size; without jemalloc the server accepts it and nothing happens. It may pause the server for some
    milliseconds.
    """
    async with alone(client) as own:
        before = await read_info(client, own)
        with translated(client.resource, sent=True):
            await own.memory_purge()
        after = await read_info(client, own, sent=True)
    return Change(before=_resident(before), after=_resident(after))


@tool(
    service=Kind.REDIS,
    risk=Risk.DESTRUCTIVE,
    title="Delete every key",
    symptoms={"memory_high", "write_refused"},
    after=("redis_set_maxmemory", "redis_evict_to"),
)
async def redis_flush(client: RedisClient, _args: NoArgs) -> Change:
    """Delete every key of every database; for a cache whose contents can be computed again.

    FLUSHALL ASYNC, so that the server goes on answering; waits at most 5 s for the memory to be free.
    """
    async with alone(client) as own:
        before = await read_info(client, own)
        with translated(client.resource, sent=True):
            await own.flushall(asynchronous=True)

        async def freed() -> dict[str, Any] | None:
            info = await read_info(client, own, sent=True)
            return None if info.get("lazyfree_pending_objects") else info

        after = await poll(freed, seconds=FREE_SECONDS)
        if after is None:
            raise ToolFailed(f"{client.resource.name}: the keys are gone, but their memory is not free after {FREE_SECONDS:g} s")
    return Change(before=memory_values(before), after=memory_values(after))


@tool(
    service=Kind.REDIS,
    risk=Risk.REVERSIBLE,
    undo="redis_set_maxmemory",
    title="Change the memory limit",
    symptoms={"memory_high", "write_refused"},
    growth=Growth(argument="mebibytes", measured="maxmemory_mib", limit="memory_mib", share="memory_percent"),
)
async def redis_set_maxmemory(client: RedisClient, args: SetMaxmemory) -> Change:
    """Change the memory limit without a restart; never above limits.memory_mib or below what is in use.

    NotApplicable also where the server has no limit: whether to introduce one is a person's decision.
    """
    name, most = client.resource.name, client.resource.limits.memory_mib
    wanted = round(args.mebibytes * MIB)
    if most is not None and args.mebibytes > most:
        raise NotApplicable(f"{name}: {args.mebibytes:g} MiB is above limits.memory_mib, which is {most}")
    async with alone(client) as own:
        before = await read_info(client, own)
        limit, used = before["maxmemory"], before["used_memory"]
        if limit == wanted:
            return Change(before=memory_values(before), after=memory_values(before))
        if limit == 0:
            raise NotApplicable(f"{name}: the server has no memory limit (maxmemory 0), so there is none to change")
        if wanted < used:
            raise NotApplicable(f"{name}: {args.mebibytes:g} MiB is below the {used / MIB:.1f} MiB in use; free memory first")
        persisted = await _configure(client, own, "maxmemory", wanted)
        after = await read_info(client, own, sent=True)
    if after["maxmemory"] != wanted:
        raise ToolFailed(f"{name}: maxmemory reads back as {after['maxmemory'] / MIB:.1f} MiB, not {args.mebibytes:g}")
    return Change(before=memory_values(before), after={**memory_values(after), "persisted": persisted}, undo={"mebibytes": limit / MIB})


@tool(
    service=Kind.REDIS,
    risk=Risk.REVERSIBLE,
    undo="redis_set_eviction_policy",
    title="Change the eviction policy",
    symptoms={"memory_high", "write_refused"},
    after=("redis_set_maxmemory",),
)
async def redis_set_eviction_policy(client: RedisClient, args: SetEvictionPolicy) -> Change:
    """Change which keys are dropped when the memory is full; on a store only to noeviction.

    Frees nothing by itself: writes succeed again, and the share of maxmemory stays.
    """
    name, is_cache = client.resource.name, client.resource.role is Role.CACHE
    if args.policy != "noeviction" and not is_cache:
        raise NotApplicable(f"{name}: {args.policy} drops data, and the resource is a store; only noeviction may be set")
    async with alone(client) as own:
        before = await read_info(client, own)
        old = before["maxmemory_policy"]
        if old == args.policy:
            return Change(before=memory_values(before), after=memory_values(before))
        persisted = await _configure(client, own, "maxmemory-policy", args.policy)
        after = await read_info(client, own, sent=True)
    if after["maxmemory_policy"] != args.policy:
        raise ToolFailed(f"{name}: maxmemory-policy reads back as {after['maxmemory_policy']}, not {args.policy}")
    can_go_back = old in get_args(EvictionPolicy) and (is_cache or old == "noeviction")
    undo: dict[str, JsonValue] | None = {"policy": old} if can_go_back else None
    return Change(before=memory_values(before), after={**memory_values(after), "persisted": persisted}, undo=undo)


@tool(
    service=Kind.REDIS,
    risk=Risk.DESTRUCTIVE,
    title="Evict keys",
    timeout_seconds=30,
    symptoms={"memory_high", "write_refused"},
    after=("redis_set_maxmemory",),
)
async def redis_evict_to(client: RedisClient, args: EvictTo) -> Change:
    """Evict least recently used keys of a cache down to a share of maxmemory; limit and policy stay.

    One round trip lowers maxmemory under an allkeys policy, lets the server evict for some milliseconds, and restores both; it is
    repeated until the share is reached. The three travel together, so that no failure in between leaves the server changed.
    """
    name = client.resource.name
    if client.resource.role is not Role.CACHE:
        raise NotApplicable(f"{name}: evicting drops data, and the resource is a store")
    async with alone(client) as own:
        before = await read_info(client, own)
        if before["maxmemory"] == 0:
            raise NotApplicable(f"{name}: the server has no memory limit (maxmemory 0) to evict to a share of")
        if before["role"] == "slave":
            raise NotApplicable(f"{name}: the server is a replica, which evicts nothing by itself; act on its master")
        target = before["maxmemory"] * args.percent // 100
        if before["used_memory"] <= target:
            return Change(before=memory_values(before), after=memory_values(before))

        evicted, idle = before["evicted_keys"], 0

        async def reached() -> dict[str, Any] | None:
            nonlocal evicted, idle
            await _evict_some(client, own, before, target)
            info = await read_info(client, own, sent=True)
            idle = idle + 1 if info["evicted_keys"] == evicted else 0
            evicted = info["evicted_keys"]
            return info if info["used_memory"] <= target or idle == IDLE_ROUNDS else None

        after = await poll(reached, seconds=EVICT_SECONDS)
    if after is None:
        raise ToolFailed(f"{name}: still above {args.percent} % after {EVICT_SECONDS:g} s of evicting; run it again to go on")
    if after["used_memory"] > target:
        left = memory_values(after)["memory_percent"]
        raise ToolFailed(f"{name}: still at {left} %, and the server finds nothing more to evict; the rest is not in keys")
    if (after["maxmemory"], after["maxmemory_policy"]) != (before["maxmemory"], before["maxmemory_policy"]):
        raise ToolFailed(f"{name}: limit or policy changed meanwhile: {after['maxmemory']} bytes, {after['maxmemory_policy']}")
    return Change(before=memory_values(before), after=memory_values(after))


async def _evict_some(client: RedisClient, own: Redis, before: dict[str, Any], target: int) -> None:
    policy = before["maxmemory_policy"]
    with translated(client.resource, sent=True):
        async with own.pipeline(transaction=False) as pipeline:
            pipeline.config_set("maxmemory-policy", policy if policy.startswith("allkeys-") else "allkeys-lru")
            pipeline.config_set("maxmemory", target)
            for _ in range(NUDGES):
                pipeline.ping()
            pipeline.config_set("maxmemory", before["maxmemory"])
            pipeline.config_set("maxmemory-policy", policy)
            await pipeline.execute()


async def _configure(client: RedisClient, own: Redis, parameter: str, value: str | int) -> bool:
    """Change a parameter; whether it was also written into the configuration file."""
    with translated(client.resource, sent=True):
        await own.config_set(parameter, value)
        try:
            await own.config_rewrite()
        except ResponseError:
            # No configuration file, or one that the server may not write: the change holds until the next start.
            return False
    return True


def _resident(info: dict[str, Any]) -> dict[str, JsonValue]:
    return {**memory_values(info), "used_memory_rss_mib": round(info["used_memory_rss"] / MIB, 2)}
