"""What the Redis tools have in common, and those that look, purge and flush, against a real Valkey."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest
from redis.asyncio import Redis

from tasks.clients.redis_server import WORKING
from tasks.core.declare import NoArgs, Tool, declaration_of
from tasks.core.errors import NotApplicable, OutcomeUnknown, ToolFailed, Unreachable
from tasks.tools.redis_reading import redis_info
from tasks.tools.redis_server import (
    EvictTo,
    SetEvictionPolicy,
    SetMaxmemory,
    redis_evict_to,
    redis_flush,
    redis_memory_purge,
    redis_set_eviction_policy,
    redis_set_maxmemory,
)

if TYPE_CHECKING:
    from tests.tasks.tools.conftest import CacheUnderTest

MIB = 2**20
CHANGING = [
    (redis_memory_purge, NoArgs()),
    (redis_flush, NoArgs()),
    (redis_set_maxmemory, SetMaxmemory(mebibytes=96)),
    (redis_set_eviction_policy, SetEvictionPolicy(policy="allkeys-lru")),
    (redis_evict_to, EvictTo(percent=70)),
]
ALL = [(redis_info, NoArgs()), *CHANGING]


def named(case: object) -> str | None:
    return getattr(case, "__name__", None)


async def test_info_tells_what_holds_the_memory_and_changes_nothing(cache: CacheUnderTest) -> None:
    await cache.fill(2, "session")
    await cache.fill(1, "page", ex=100)
    await cache.second.set("plain", "x")

    change = await redis_info(cache.client(), NoArgs())

    assert change.before == change.after
    assert change.after["keys"] == await cache.second.dbsize() == 3 * 64 + 1
    assert change.after["keys_that_expire"] == 64
    assert change.after["maxmemory_mib"] == 64
    prefixes = {each["prefix"]: each for each in cast("list[dict[str, Any]]", change.after["top_prefixes"])}
    assert list(prefixes) == ["session", "page", "plain"]
    assert prefixes["session"]["keys"] == 128
    usage = cast("int", await cache.second.memory_usage("session:1"))
    assert prefixes["session"]["kib"] == pytest.approx(128 * usage / 1024, rel=0.01)


async def test_info_samples_a_bounded_number_of_keys_of_any_name(cache: CacheUnderTest) -> None:
    async with cache.second.pipeline(transaction=False) as pipeline:
        for number in range(3000):
            pipeline.set(b"\xff\n`odd`" + str(number).encode() * 20, "x")
        await pipeline.execute()

    change = await redis_info(cache.client(), NoArgs())

    assert change.after["sampled_keys"] == 200
    prefixes = cast("list[dict[str, Any]]", change.after["top_prefixes"])
    assert len(prefixes) == 5
    assert all(len(each["prefix"]) <= 32 and each["prefix"].isprintable() and each["kib"] > 0 for each in prefixes)


async def test_purge_leaves_the_keys(cache: CacheUnderTest) -> None:
    await cache.fill(1)

    change = await redis_memory_purge(cache.client(), NoArgs())

    assert change.after["keys"] == await cache.second.dbsize() == 64
    info = await cache.second.info("memory")
    assert change.after["used_memory_rss_mib"] == pytest.approx(info["used_memory_rss"] / MIB, abs=5)


async def test_flush_empties_every_database(cache: CacheUnderTest) -> None:
    await cache.fill(20)
    async with Redis.from_url(cache.lab.cache.url("monitor").removesuffix("/0") + "/3", protocol=2) as elsewhere:
        await elsewhere.set("key", "value")
    client = cache.client()

    change = await redis_flush(client, NoArgs())
    info = await cache.second.info()
    again = await redis_flush(client, NoArgs())

    assert change.before["keys"] == 20 * 64 + 1
    assert change.after["keys"] == 0
    assert not {"db0", "db3"} & set(info)
    assert change.after["used_memory_mib"] == pytest.approx(info["used_memory"] / MIB, abs=1)
    assert change.undo is None
    assert again.before["keys"] == again.after["keys"] == 0


@pytest.mark.parametrize(("tool", "args"), CHANGING, ids=named)
async def test_a_tool_is_refused_while_another_works(tool: Any, args: Any, cache: CacheUnderTest) -> None:
    await cache.fill(61)
    client = cache.client()
    await cache.second.client_setname(WORKING)

    with pytest.raises(NotApplicable, match="another tool"):
        await tool(client, args)

    assert await cache.settings() == (64 * MIB, "noeviction")
    assert await cache.second.dbsize() == 61 * 64
    await cache.second.client_setname("")
    await tool(client, args)
    assert WORKING not in [each["name"] for each in await cache.second.client_list()]


@pytest.mark.parametrize(("tool", "args"), ALL, ids=named)
async def test_without_a_server_nothing_is_sent(tool: Any, args: Any, cache: CacheUnderTest) -> None:
    client = cache.client()
    await client.redis.ping()
    await cache.runtime.stop()

    with pytest.raises(Unreachable, match="cache: no answer"):
        await tool(client, args)


@pytest.mark.parametrize(("tool", "args"), ALL, ids=named)
async def test_a_refused_login_is_no_reason_to_try_again(tool: Any, args: Any, cache: CacheUnderTest) -> None:
    with pytest.raises(ToolFailed, match="login `monitor`") as caught:
        await tool(cache.client(password="wrong-secret"), args)

    assert "wrong-secret" not in str(caught.value)


async def test_a_replica_is_not_flushed(cache: CacheUnderTest) -> None:
    await cache.fill(1)
    await cache.second.replicaof("127.0.0.1", 1)
    try:
        with pytest.raises(NotApplicable, match="replica"):
            await redis_flush(cache.client(), NoArgs())
        with pytest.raises(NotApplicable, match="replica"):
            await redis_evict_to(cache.client(), EvictTo(percent=10))
    finally:
        await cache.second.replicaof("NO", "ONE")

    assert await cache.second.dbsize() == 64


@pytest.mark.parametrize(
    ("tool", "args", "command"),
    [(redis_flush, NoArgs(), b"FLUSHALL"), (redis_set_maxmemory, SetMaxmemory(mebibytes=96), b"maxmemory")],
    ids=named,
)
async def test_a_lost_reply_is_an_unknown_outcome(tool: Any, args: Any, command: bytes, cache: CacheUnderTest) -> None:
    await cache.fill(1)

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass everything on, but end the connection when `command` has been answered."""
        server_reader, server_writer = await asyncio.open_connection(cache.lab.cache.host, cache.lab.cache.port)
        while request := await reader.read(100_000):
            server_writer.write(request)
            reply = await server_reader.read(100_000)
            if command in request:
                break
            writer.write(reply)
            await writer.drain()
        writer.close()
        server_writer.close()

    proxy = await asyncio.start_server(forward, cache.lab.cache.host, 0)
    client = cache.client(port=proxy.sockets[0].getsockname()[1])
    async with proxy:
        with pytest.raises(OutcomeUnknown, match="reply was lost"):
            await tool(client, args)
        await client.close()

    done = {redis_flush: await cache.second.dbsize() == 0, redis_set_maxmemory: (await cache.settings())[0] == 96 * MIB}
    assert done[tool]


def test_every_tool_declares_what_it_may_do() -> None:
    declared = [declaration_of(tool) for tool, _ in ALL]

    assert {tool.name: str(tool.risk) for tool in declared if isinstance(tool, Tool)} == {
        "redis_info": "read_only",
        "redis_memory_purge": "disruptive",
        "redis_flush": "destructive",
        "redis_set_maxmemory": "reversible",
        "redis_set_eviction_policy": "reversible",
        "redis_evict_to": "destructive",
    }
