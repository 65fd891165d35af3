"""A real Valkey for the tests of its tools, asked over a connection apart from theirs."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from redis.asyncio import Redis

from blocks.runtimes import ProcessRuntime
from blocks.schema import Kind, Limits, Resource, Role
from compose.description import LabDescription
from tasks.clients.login import Login
from tasks.clients.redis_server import RedisClient, open_redis
from tasks.clients.runtime import SupervisedProcess

MIB = 2**20
SAVE_POINTS = "3600 1"


@dataclass
class CacheUnderTest:
    """The lab's Valkey, and what a test does to it and asks it."""

    lab: LabDescription
    runtime: SupervisedProcess
    second: Redis
    _stack: AsyncExitStack

    def client(self, role: Role = Role.CACHE, *, port: int | None = None, password: str | None = None, runtime: bool = True) -> RedisClient:
        """A new client that has seen nothing yet."""
        login = self.lab.cache
        used_port = port or login.port
        address = f"{login.host}:{used_port}"
        resource = Resource(name="cache", kind=Kind.REDIS, address=address, role=role, limits=Limits(memory_mib=128))
        redis = open_redis(login.host, used_port, username=login.username, password=password or login.password)
        client = RedisClient(redis, resource, self.runtime if runtime else None)
        self._stack.push_async_callback(client.close)
        return client

    def as_declared(self, **fields: Any) -> RedisClient:
        """A new client of the cache as the lab's inventory declares it, with these fields of the resource changed."""
        cache = self.lab.cache
        declared: dict[str, Any] = {
            "name": "cache",
            "kind": Kind.REDIS,
            "address": f"{cache.host}:{cache.port}",
            "role": Role.CACHE,
            "primary": True,
            "config_path": str(cache.config_path),
            "runtime": ProcessRuntime(control=str(self.lab.control), service="cache"),
        }
        resource = Resource(**{**declared, **fields})
        host, _, port = resource.address.rpartition(":")
        application = Login(**cache.logins["application"].model_dump())
        redis = open_redis(host, int(port), username=cache.username, password=cache.password)
        client = RedisClient(redis, resource, self.runtime, application)
        self._stack.push_async_callback(client.close)
        return client

    async def fill(self, mebibytes: int, prefix: str = "page", **options: Any) -> None:
        """That many MiB in values of 16 KiB."""
        async with self.second.pipeline(transaction=False) as pipeline:
            for number in range(mebibytes * 64):
                pipeline.set(f"{prefix}:{number}", "x" * 16 * 1024, **options)
            await pipeline.execute()

    async def settings(self) -> tuple[int, str]:
        """The memory limit in bytes, and the policy."""
        found = await self.second.config_get("maxmemory", "maxmemory-policy")
        return int(str(found["maxmemory"])), str(found["maxmemory-policy"])


@pytest.fixture
async def cache(fresh_cache: LabDescription) -> AsyncIterator[CacheUnderTest]:
    """The module's Valkey at its baseline: running, empty, 64 MiB, noeviction, saving."""
    runtime = SupervisedProcess(str(fresh_cache.control), "cache")
    if (await runtime.status()).state != "running":
        await runtime.start()
    async with (
        Redis.from_url(fresh_cache.cache.url("monitor"), decode_responses=True, protocol=2) as second,
        AsyncExitStack() as stack,
    ):
        await second.execute_command("FLUSHALL", "SYNC")  # type: ignore[no-untyped-call]
        await second.config_set("maxmemory", 64 * MIB)
        await second.config_set("maxmemory-policy", "noeviction")
        await second.config_set("save", SAVE_POINTS)
        await second.config_rewrite()
        yield CacheUnderTest(fresh_cache, runtime, second, stack)
