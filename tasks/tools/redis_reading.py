"""A tool that only reads a Redis server."""

from collections import Counter

from pydantic import JsonValue
from redis.asyncio import Redis

from blocks.schema import Kind, Risk
from tasks.clients.redis_server import MIB, RedisClient, key_counts, memory_values, translated
from tasks.core.declare import NoArgs, tool
from tasks.core.models import Change

SAMPLED_KEYS = 200
PREFIXES = 5
PREFIX_LENGTH = 32


@tool(service=Kind.REDIS, risk=Risk.READ_ONLY, title="Look at Redis")
async def redis_info(client: RedisClient, _args: NoArgs) -> Change:
    """Read memory, keys, clients and persistence, and which key prefixes hold the memory.

    From INFO; `top_prefixes` from MEMORY USAGE of at most 200 keys that SCAN gave, the largest first: prefix (a key's name up to its
    first colon), keys and KiB in the sample.
    """
    with translated(client.resource, sent=False):
        info = await client.redis.info()
        sampled, prefixes = await _sample(client.redis)
    values: dict[str, JsonValue] = {
        **memory_values(info),
        "keys_that_expire": key_counts(info)[1],
        "used_memory_rss_mib": round(info["used_memory_rss"] / MIB, 2),
        "fragmentation_ratio": info.get("mem_fragmentation_ratio"),
        "allocator": info.get("mem_allocator"),
        "sampled_keys": sampled,
        "top_prefixes": prefixes,
        "connected_clients": info["connected_clients"],
        "maxclients": info.get("maxclients"),
        "role": info["role"],
        "version": info.get("valkey_version") or info.get("redis_version"),
        "uptime_seconds": info["uptime_in_seconds"],
        "has_config_file": bool(info.get("config_file")),
        "aof_enabled": bool(info.get("aof_enabled")),
        "rdb_last_bgsave_status": info.get("rdb_last_bgsave_status"),
        "changes_since_last_save": info.get("rdb_changes_since_last_save"),
    }
    return Change(before=values, after=values)


async def _sample(redis: Redis) -> tuple[int, list[JsonValue]]:
    names: list[str] = []
    cursor = 0
    for _ in range(SAMPLED_KEYS // 20):
        cursor, found = await redis.scan(cursor, count=SAMPLED_KEYS)
        names += [str(name) for name in found]
        if cursor == 0 or len(names) >= SAMPLED_KEYS:
            break
    names = names[:SAMPLED_KEYS]
    async with redis.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.memory_usage(name)
        sizes = await pipeline.execute()
    counts: Counter[str] = Counter()
    octets: Counter[str] = Counter()
    for name, size in zip(names, sizes, strict=True):
        # Names are the applications' own text: cut, and nothing unprintable.
        prefix = "".join(each if " " <= each <= "~" else "?" for each in name.split(":", 1)[0][:PREFIX_LENGTH])
        counts[prefix] += 1
        octets[prefix] += size or 0  # None: gone since
    top: list[JsonValue] = [
        {"prefix": prefix, "keys": counts[prefix], "kib": round(size / 1024, 1)} for prefix, size in octets.most_common(PREFIXES)
    ]
    return len(names), top
