"""The restart of Redis against a real Valkey under the lab's supervisor."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import psutil
import pytest

from blocks.schema import Role
from tasks.clients.polling import poll
from tasks.clients.redis_server import WORKING
from tasks.clients.runtime import SupervisedProcess
from tasks.core.declare import NoArgs
from tasks.core.errors import NotApplicable, ToolFailed, Unreachable
from tasks.tools.redis_process import redis_restart

if TYPE_CHECKING:
    from tests.tasks.tools.conftest import CacheUnderTest


async def pid_of(cache: CacheUnderTest) -> int:
    return int((await cache.second.info("server"))["process_id"])


@pytest.fixture
def long_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the server had been up for long."""
    monkeypatch.setattr("tasks.tools.redis_process.JUST_STARTED_SECONDS", 0)


@pytest.mark.parametrize("role", list(Role))
async def test_a_restart_brings_the_saved_keys_back(role: Role, cache: CacheUnderTest) -> None:
    await cache.fill(2)
    pid = await pid_of(cache)

    change = await redis_restart(cache.client(role), NoArgs())

    assert not psutil.pid_exists(pid)
    assert (change.before["pid"], change.after["pid"]) == (pid, await pid_of(cache))
    assert change.after["saved"] is True
    assert change.after["keys"] == await cache.second.dbsize() == 128
    assert await cache.second.get("page:1") == "x" * 16 * 1024


async def test_a_store_with_an_append_only_file_comes_back(cache: CacheUnderTest) -> None:
    await cache.second.config_set("save", "")
    await cache.second.config_set("appendonly", "yes")
    await cache.second.config_rewrite()
    try:

        async def appending() -> bool | None:
            info = await cache.second.info("persistence")
            return None if info["aof_rewrite_in_progress"] or info["aof_rewrite_scheduled"] else True

        assert await poll(appending, seconds=5)
        await cache.fill(1)
        change = await redis_restart(cache.client(Role.STORE), NoArgs())
        assert change.after["saved"] is True
        assert await cache.second.dbsize() == 64
    finally:
        await cache.second.config_set("appendonly", "no")
        await cache.second.config_rewrite()


async def test_a_server_that_is_down_is_started_and_a_second_start_refused(cache: CacheUnderTest) -> None:
    await cache.fill(1)
    await cache.second.save()
    client = cache.client(Role.STORE)
    psutil.Process(await pid_of(cache)).kill()

    async def exited() -> bool | None:
        return True if (await cache.runtime.status()).state == "exited" else None

    assert await poll(exited, seconds=5)
    change = await redis_restart(client, NoArgs())

    assert change.before == {"state": "exited", "pid": None}
    assert change.after["pid"] == await pid_of(cache)
    assert change.after["keys"] == await cache.second.dbsize() == 64


async def test_a_store_that_lives_in_memory_only_is_not_restarted(cache: CacheUnderTest) -> None:
    await cache.second.config_set("save", "")
    await cache.second.config_rewrite()
    await cache.fill(1)
    pid = await pid_of(cache)

    with pytest.raises(NotApplicable, match="in memory only"):
        await redis_restart(cache.client(Role.STORE), NoArgs())
    assert await pid_of(cache) == pid
    change = await redis_restart(cache.client(Role.CACHE), NoArgs())

    assert change.after["saved"] is False
    assert await pid_of(cache) != pid


async def test_a_store_that_can_not_be_saved_is_not_restarted(cache: CacheUnderTest) -> None:
    await cache.fill(1)
    pid = await pid_of(cache)
    obstacle = cache.lab.cache.config_path.parent / "dump.rdb"
    obstacle.unlink(missing_ok=True)
    obstacle.mkdir()
    try:
        with pytest.raises(ToolFailed, match="save before the restart failed"):
            await redis_restart(cache.client(Role.STORE), NoArgs())
    finally:
        obstacle.rmdir()

    assert await pid_of(cache) == pid
    assert await cache.second.dbsize() == 64
    await cache.second.save()


async def test_a_silent_store_is_left_alone(cache: CacheUnderTest, long_up: None) -> None:
    pid = await pid_of(cache)
    await cache.runtime.signal("SIGSTOP")
    try:
        with pytest.raises(NotApplicable, match="it is a store"):
            await redis_restart(cache.client(Role.STORE), NoArgs())
    finally:
        await cache.runtime.signal("SIGCONT")

    assert await pid_of(cache) == pid


async def test_a_silent_cache_is_restarted(cache: CacheUnderTest, long_up: None) -> None:
    pid = await pid_of(cache)
    client = cache.client(Role.CACHE)
    await cache.runtime.signal("SIGSTOP")

    change = await redis_restart(client, NoArgs())

    assert change.before == {"state": "running", "pid": pid}
    assert change.after["pid"] == await pid_of(cache) != pid


async def test_a_server_that_was_just_started_is_left_to_come_up(cache: CacheUnderTest) -> None:
    await cache.runtime.restart()
    pid = await pid_of(cache)
    await cache.runtime.signal("SIGSTOP")
    restart = asyncio.create_task(redis_restart(cache.client(Role.STORE), NoArgs()))
    await asyncio.wait([restart], timeout=1.5)
    await cache.runtime.signal("SIGCONT")

    change = await restart

    assert change.after["pid"] == await pid_of(cache) == pid


async def test_without_a_runtime_nothing_is_done(cache: CacheUnderTest) -> None:
    pid = await pid_of(cache)

    with pytest.raises(NotApplicable, match="add `runtime:`"):
        await redis_restart(cache.client(runtime=False), NoArgs())

    assert await pid_of(cache) == pid


async def test_without_a_supervisor_nothing_is_done(cache: CacheUnderTest) -> None:
    pid = await pid_of(cache)
    client = cache.client()
    client.runtime = SupervisedProcess(str(cache.lab.directory / "nobody"), "cache")

    with pytest.raises(Unreachable, match="no supervisor"):
        await redis_restart(client, NoArgs())

    assert await pid_of(cache) == pid


async def test_a_restart_is_refused_while_another_tool_works(cache: CacheUnderTest) -> None:
    pid = await pid_of(cache)
    await cache.second.client_setname(WORKING)

    with pytest.raises(NotApplicable, match="another tool"):
        await redis_restart(cache.client(), NoArgs())

    assert await pid_of(cache) == pid


async def test_a_server_that_turns_clients_away_is_not_restarted(cache: CacheUnderTest) -> None:
    pid = await pid_of(cache)
    await cache.second.config_set("maxclients", 1)
    try:
        with pytest.raises(NotApplicable, match="max number of clients"):
            await redis_restart(cache.client(), NoArgs())
    finally:
        await cache.second.config_set("maxclients", 200)

    assert await pid_of(cache) == pid
