"""The end of a blocking script against a real Valkey."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from tasks.clients.polling import poll
from tasks.core.declare import NoArgs
from tasks.core.errors import NotApplicable
from tasks.core.models import Reading
from tasks.probes.redis_server import measure
from tasks.tools.redis_script import redis_script_kill

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.tasks.tools.conftest import CacheUnderTest

LIBRARY = "#!lua name=pricing\nredis.register_function('discounts', function() while true do end end)"


@asynccontextmanager
async def running(cache: CacheUnderTest, *command: str) -> AsyncIterator[asyncio.Task[object]]:
    """A command of the shop that comes to no end by itself, or with an error."""
    url = cache.lab.cache.url("monitor")
    async with Redis.from_url(url, protocol=2, socket_timeout=60, retry=Retry(NoBackoff(), 0)) as shop:
        task = asyncio.create_task(shop.execute_command(*command))  # type: ignore[no-untyped-call]
        try:
            yield task
        finally:
            async with asyncio.timeout(30):
                await asyncio.gather(task, return_exceptions=True)


async def until_blocked(cache: CacheUnderTest) -> Reading:
    """The first reading that shows the script in the way."""
    client = cache.as_declared()

    async def blocked() -> Reading | None:
        seen = await measure(client, client.resource)
        return seen if seen.values.get("blocked_by_script") or seen.values.get("process_state") == "running" else None

    seen = await poll(blocked, seconds=20)
    assert seen is not None
    return seen


async def test_a_script_ends_and_where_none_runs_nothing_does(cache: CacheUnderTest) -> None:
    async with running(cache, "EVAL", "while true do end", "0") as script:
        await until_blocked(cache)

        change = await redis_script_kill(cache.as_declared(), NoArgs())

        assert change.after == {"blocked_by_script": False, "ended": "script"}
        with pytest.raises(RedisError, match="Script killed"):
            await script
    assert await cache.second.ping()
    # One that has written is left to a person: see the scenario redis_script_that_wrote.
    with pytest.raises(NotApplicable, match="no script runs"):
        await redis_script_kill(cache.as_declared(), NoArgs())


async def test_a_function_ends(cache: CacheUnderTest) -> None:
    await cache.second.function_load(LIBRARY, replace=True)
    async with running(cache, "FCALL", "discounts", "0") as function:
        await until_blocked(cache)

        assert (await redis_script_kill(cache.as_declared(), NoArgs())).after["ended"] == "function"

        with pytest.raises(RedisError):
            await function


async def test_a_silent_server_that_computes_is_told_from_a_frozen_one_and_its_script_ended(cache: CacheUnderTest) -> None:
    """As with the server's own busy-reply-threshold of 5 s: it says nothing for a time, and takes the command after it."""
    await cache.second.config_set("busy-reply-threshold", 2500)
    try:
        async with running(cache, "EVAL", "while true do end", "0"):
            seen = await until_blocked(cache)
            assert seen.values["answers"] == "timeout"

            await redis_script_kill(cache.as_declared(), NoArgs())
    finally:
        await cache.second.config_set("busy-reply-threshold", 500)
    assert await cache.second.ping()

    client = cache.as_declared()
    await cache.runtime.signal("SIGSTOP")
    try:
        assert (await measure(client, client.resource)).values["process_state"] == "stopped"
    finally:
        await cache.runtime.signal("SIGCONT")
