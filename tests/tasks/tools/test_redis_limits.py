"""Memory limit, eviction policy and eviction, against a real Valkey."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import ValidationError

from blocks.schema import Role
from tasks.clients.polling import poll
from tasks.clients.redis_server import WORKING
from tasks.core.errors import NotApplicable, ToolFailed
from tasks.core.models import Change
from tasks.tools.redis_server import (
    EvictTo,
    SetEvictionPolicy,
    SetMaxmemory,
    redis_evict_to,
    redis_set_eviction_policy,
    redis_set_maxmemory,
)

if TYPE_CHECKING:
    from tests.tasks.tools.conftest import CacheUnderTest

MIB = 2**20
ROOT = Path(__file__).parents[3]


def undo_of(change: Change) -> str:
    """The undo's arguments as a record holds them."""
    return Change.model_validate_json(change.model_dump_json()).model_dump_json(include={"undo"})[len('{"undo":') : -1]


async def test_the_limit_survives_a_restart_and_is_taken_back(cache: CacheUnderTest) -> None:
    client = cache.client()

    change = await redis_set_maxmemory(client, SetMaxmemory(mebibytes=96))

    assert (change.before["maxmemory_mib"], change.after["maxmemory_mib"], change.after["persisted"]) == (64, 96, True)
    assert await cache.settings() == (96 * MIB, "noeviction")
    await cache.runtime.restart()
    assert await cache.settings() == (96 * MIB, "noeviction")
    await redis_set_maxmemory(client, SetMaxmemory.model_validate_json(undo_of(change)))
    assert await cache.settings() == (64 * MIB, "noeviction")


async def test_an_odd_limit_comes_back_to_the_byte(cache: CacheUnderTest) -> None:
    await cache.second.config_set("maxmemory", 100_000_001)

    change = await redis_set_maxmemory(cache.client(), SetMaxmemory(mebibytes=120))
    assert (await cache.settings())[0] == 120 * MIB
    await redis_set_maxmemory(cache.client(), SetMaxmemory.model_validate_json(undo_of(change)))

    assert (await cache.settings())[0] == 100_000_001


async def test_the_same_limit_again_changes_nothing(cache: CacheUnderTest) -> None:
    change = await redis_set_maxmemory(cache.client(), SetMaxmemory(mebibytes=64))

    assert change.before == change.after
    assert change.undo is None


async def test_a_limit_that_can_not_be_written_down_says_so(cache: CacheUnderTest) -> None:
    directory = cache.lab.cache.config_path.parent
    aside = directory.rename(directory.with_name("aside"))
    try:
        change = await redis_set_maxmemory(cache.client(), SetMaxmemory(mebibytes=96))
    finally:
        aside.rename(directory)

    assert change.after["persisted"] is False
    assert (await cache.settings())[0] == 96 * MIB


@pytest.mark.parametrize(
    ("mebibytes", "limit_mib", "why"),
    [(129, 64, "above limits.memory_mib"), (16, 64, "below the"), (96, 0, "no memory limit")],
)
async def test_a_limit_out_of_bounds_is_refused(mebibytes: float, limit_mib: int, why: str, cache: CacheUnderTest) -> None:
    await cache.fill(20)
    await cache.second.config_set("maxmemory", limit_mib * MIB)

    with pytest.raises(NotApplicable, match=why):
        await redis_set_maxmemory(cache.client(), SetMaxmemory(mebibytes=mebibytes))

    assert (await cache.settings())[0] == limit_mib * MIB


def test_arguments_out_of_range_name_their_field() -> None:
    with pytest.raises(ValidationError, match="mebibytes"):
        SetMaxmemory(mebibytes=0)
    with pytest.raises(ValidationError, match="percent"):
        EvictTo(percent=0)
    with pytest.raises(ValidationError, match="policy"):
        SetEvictionPolicy.model_validate({"policy": "everything"})


async def test_the_policy_survives_a_restart_and_is_taken_back(cache: CacheUnderTest) -> None:
    client = cache.client()

    change = await redis_set_eviction_policy(client, SetEvictionPolicy(policy="volatile-ttl"))

    assert change.after["persisted"] is True
    await cache.runtime.restart()
    assert (await cache.settings())[1] == change.after["maxmemory_policy"] == "volatile-ttl"
    back = await redis_set_eviction_policy(client, SetEvictionPolicy.model_validate_json(undo_of(change)))
    assert (await cache.settings())[1] == back.after["maxmemory_policy"] == "noeviction"
    same = await redis_set_eviction_policy(client, SetEvictionPolicy(policy="noeviction"))
    assert same.before == same.after


async def test_a_store_takes_no_policy_but_noeviction(cache: CacheUnderTest) -> None:
    store = cache.client(Role.STORE)
    await cache.second.config_set("maxmemory-policy", "allkeys-lru")

    with pytest.raises(NotApplicable, match="store"):
        await redis_set_eviction_policy(store, SetEvictionPolicy(policy="allkeys-lfu"))
    change = await redis_set_eviction_policy(store, SetEvictionPolicy(policy="noeviction"))

    assert change.undo is None
    assert (await cache.settings())[1] == "noeviction"


@pytest.mark.parametrize("policy", ["noeviction", "allkeys-lfu", "volatile-lru"])
async def test_evicting_frees_memory_and_leaves_limit_and_policy(policy: str, cache: CacheUnderTest) -> None:
    await cache.fill(61)
    await cache.second.config_set("maxmemory-policy", policy)

    change = await redis_evict_to(cache.client(), EvictTo(percent=70))

    info = await cache.second.info()
    assert await cache.settings() == (64 * MIB, policy)
    assert 0.6 * 64 * MIB < info["used_memory"] <= 0.71 * 64 * MIB
    assert change.after["keys"] == await cache.second.dbsize()
    assert float(str(change.after["memory_percent"])) <= 70
    assert change.undo is None
    assert await cache.second.set("another", "x" * 20 * 1024)


async def test_the_keys_used_last_stay(cache: CacheUnderTest) -> None:
    await cache.fill(30, "old")
    await cache.second.config_set("maxmemory-samples", 64)
    await asyncio.sleep(1.1)  # the server's clock for the last use ticks once a second
    await cache.fill(31, "new")

    await redis_evict_to(cache.client(), EvictTo(percent=70))

    left = [str(key).split(":")[0] for key in await cache.second.keys()]
    assert left.count("new") > 0.95 * 31 * 64
    assert left.count("old") < 0.6 * 30 * 64


async def test_evicting_below_what_is_used_anyway_changes_nothing(cache: CacheUnderTest) -> None:
    await cache.fill(10)

    change = await redis_evict_to(cache.client(), EvictTo(percent=70))

    assert change.before == change.after
    assert await cache.second.dbsize() == 10 * 64


@pytest.mark.parametrize(("role", "limit_mib", "why"), [(Role.STORE, 64, "store"), (Role.CACHE, 0, "no memory limit")])
async def test_neither_a_store_nor_an_unlimited_cache_is_evicted(role: Role, limit_mib: int, why: str, cache: CacheUnderTest) -> None:
    await cache.fill(61)
    await cache.second.config_set("maxmemory", limit_mib * MIB)

    with pytest.raises(NotApplicable, match=why):
        await redis_evict_to(cache.client(role), EvictTo(percent=70))

    assert await cache.second.dbsize() == 61 * 64


async def test_what_is_not_in_keys_can_not_be_evicted(cache: CacheUnderTest) -> None:
    limit = int((await cache.second.info("memory"))["used_memory"] * 1.5)
    await cache.second.config_set("maxmemory", limit)

    with pytest.raises(ToolFailed, match="finds nothing more to evict"):
        await redis_evict_to(cache.client(), EvictTo(percent=10))

    assert await cache.settings() == (limit, "noeviction")


EVICT = """
import asyncio, json, sys
from blocks.schema import Resource
from tasks.clients.redis_server import RedisClient, open_redis
from tasks.tools.redis_server import EvictTo, redis_evict_to

host, port, username, password = json.load(sys.stdin)
resource = Resource(name="cache", kind="redis", address=f"{host}:{port}", role="cache")
client = RedisClient(open_redis(host, port, username=username, password=password), resource)
asyncio.run(redis_evict_to(client, EvictTo(percent=10)))
"""
MANY_SMALL_KEYS = "for number = 1, 250000 do redis.call('SET', 'key:' .. number, string.rep('x', 100)) end"


async def test_limit_and_policy_outlive_whoever_evicts(cache: CacheUnderTest) -> None:
    await cache.second.eval(MANY_SMALL_KEYS, 0)
    login = cache.lab.cache
    evicting = await asyncio.create_subprocess_exec(sys.executable, "-c", EVICT, cwd=ROOT, stdin=asyncio.subprocess.PIPE)
    assert evicting.stdin is not None
    evicting.stdin.write(json.dumps([login.host, login.port, login.username, login.password]).encode())
    evicting.stdin.close()

    async def under_way() -> bool | None:
        return True if await cache.second.dbsize() < 250_000 else None

    assert await poll(under_way, seconds=20, every_seconds=0)
    evicting.kill()
    assert await evicting.wait() < 0

    async def over() -> bool | None:
        return None if WORKING in [each["name"] for each in await cache.second.client_list()] else True

    assert await poll(over, seconds=5)
    assert await cache.settings() == (64 * MIB, "noeviction")
    assert await cache.second.dbsize() > 0


async def test_several_at_the_same_moment_do_no_harm(cache: CacheUnderTest) -> None:
    await cache.fill(61)
    calls = [redis_evict_to(cache.client(), EvictTo(percent=70)) for _ in range(4)]

    results = await asyncio.gather(*calls, return_exceptions=True)

    assert all(isinstance(result, Change | NotApplicable) for result in results)
    assert await cache.settings() == (64 * MIB, "noeviction")
    assert await cache.second.dbsize() > 35 * 64
