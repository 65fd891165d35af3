"""What a planner may ask about the keys of a Redis or Valkey."""

import time
from collections import Counter
from collections.abc import Sequence
from statistics import median
from typing import Any

from pydantic import Field, JsonValue
from redis.asyncio import Redis

from blocks.schema import Kind, Risk
from tasks.clients.redis_server import RedisClient, translated
from tasks.core.declare import ToolArgs, measured, tool
from tasks.core.models import Change

SAMPLED_KEYS = 200
SCANNED_AT_ONCE = 1000
SCAN_SECONDS = 2.0
LARGEST = 3
NAME_LENGTH = 64
NO_EXPIRY = -1


class Prefix(ToolArgs):
    """Which keys."""

    prefix: str = Field(max_length=64, description="How the keys' names begin, such as `page:` for a prefix `page`; empty: all keys.")


# Where writes are refused something may have to go. Before that more memory is the remedy, and what is kept changes no plan.
@tool(service=Kind.REDIS, risk=Risk.READ_ONLY, title="Look at the keys of a prefix", fits=measured("write_refused"))
async def redis_prefix_info(client: RedisClient, args: Prefix) -> Change:
    """Read of the keys with a prefix how large and idle they are, and how many would expire by themselves.

    From a sample of at most 200 keys that SCAN gave within 2 s: MEMORY USAGE, TYPE, TTL and OBJECT IDLETIME, which is unknown under an
    LFU policy. Nothing is read of what the keys hold, and their idle time stays as it is. Raises Unreachable or ToolFailed.
    """
    with translated(client.resource, sent=False):
        names, is_all = await _named(client.redis, args.prefix)
        found = await _described(client.redis, names)
    values: dict[str, JsonValue] = {
        "prefix": args.prefix,
        "sampled_keys": len(found),
        "are_all_keys_of_the_prefix": is_all,
        "kib": round(sum(key["bytes"] for key in found) / 1024, 1),
        "without_expiry": sum(key["ttl"] == NO_EXPIRY for key in found),
        "median_seconds_to_expiry": _median([key["ttl"] for key in found if key["ttl"] >= 0]),
        "median_idle_seconds": _median([key["idle"] for key in found if key["idle"] is not None]),
        "types": dict(Counter(key["type"] for key in found)),
        "largest": [
            {"key": _printable(key["name"]), "type": key["type"], "kib": round(key["bytes"] / 1024, 1)}
            for key in sorted(found, key=lambda key: -key["bytes"])[:LARGEST]
        ],
    }
    return Change(before=values, after=values)


async def _named(redis: Redis, prefix: str) -> tuple[list[str], bool]:
    """Names of keys, and whether there are no more."""
    pattern = "".join(f"\\{each}" if each in "*?[]\\" else each for each in prefix) + "*"
    names: dict[str, None] = {}
    cursor, deadline = 0, time.monotonic() + SCAN_SECONDS
    while len(names) <= SAMPLED_KEYS and time.monotonic() < deadline:
        cursor, found = await redis.scan(cursor, match=pattern, count=SCANNED_AT_ONCE)
        names |= dict.fromkeys(map(str, found))  # SCAN may name a key twice
        if cursor == 0:
            break
    return list(names)[:SAMPLED_KEYS], cursor == 0 and len(names) <= SAMPLED_KEYS


async def _described(redis: Redis, names: Sequence[str]) -> list[dict[str, Any]]:
    """Each key's name, type, size, time to live and idle time in seconds; without those that are gone since."""
    async with redis.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.object("IDLETIME", name)
            pipeline.memory_usage(name)
            pipeline.type(name)
            pipeline.ttl(name)
        answers = await pipeline.execute(raise_on_error=False)
    described = []
    for place, name in enumerate(names):
        idle, octets, kind, ttl = answers[4 * place : 4 * place + 4]
        if isinstance(octets, int) and isinstance(ttl, int):
            described.append(
                {"name": name, "type": str(kind), "bytes": octets, "ttl": ttl, "idle": idle if isinstance(idle, int) else None}
            )
    return described


def _median(numbers: Sequence[float]) -> float | None:
    return median(numbers) if numbers else None


def _printable(name: str) -> str:
    """Names are the applications' own text: cut, and nothing unprintable."""
    return "".join(each if " " <= each <= "~" else "?" for each in name[:NAME_LENGTH])
