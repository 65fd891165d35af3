"""A Memorystore instance: what the API says of it, and its Redis, reached at its private address."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio import Redis

from blocks.kinds import Kind
from blocks.schema import Resource
from tasks.clients.google_access import GoogleCloud
from tasks.clients.google_operations import Operation, redis_operation, redis_operations
from tasks.clients.google_snapshots import CloudInstance
from tasks.clients.login import Login
from tasks.clients.private_way import PrivateWay
from tasks.clients.redis_server import open_redis
from tasks.core.errors import NotApplicable, ProbeBroken, Unreachable

READY = "READY"
BASIC, STANDARD_HA = "BASIC", "STANDARD_HA"
TLS = "SERVER_AUTHENTICATION"


@dataclass(frozen=True)
class RedisInstance:
    """An instance as the API lists it."""

    path: str
    """Its full name: projects/P/locations/REGION/instances/NAME."""
    region: str
    state: str
    message: str
    """What Google adds to the state."""
    tier: str
    memory_gib: int
    host: str
    port: int
    has_auth: bool
    has_tls: bool
    policy: str
    """maxmemory-policy, where it is not the default, volatile-lru."""

    @property
    def keeps_data(self) -> bool:
        """Whether a change of its size keeps what it holds: only where there is a replica."""
        return self.tier == STANDARD_HA


def redis_instance(listed: CloudInstance) -> RedisInstance:
    """Of a redis_v1.Instance."""
    raw = listed.raw
    return RedisInstance(
        path=raw.name,
        region=listed.location,
        state=listed.state,
        message=raw.status_message,
        tier=raw.tier.name,
        memory_gib=raw.memory_size_gb,
        host=raw.host,
        port=raw.port,
        has_auth=raw.auth_enabled,
        has_tls=raw.transit_encryption_mode.name == TLS,
        policy=dict(raw.redis_configs).get("maxmemory-policy", "volatile-lru"),
    )


@dataclass
class MemorystoreClient:
    """One instance. Its connections are opened when they are first needed, and again where its address or the way to it has changed."""

    resource: Resource
    cloud: GoogleCloud
    way: PrivateWay = field(default_factory=PrivateWay)
    monitor: Login | None = None
    """Its password is the AUTH string; the user's name is of no account."""
    _redis: Redis | None = field(default=None, init=False, repr=False)
    _opened: tuple[str, int, bool] | None = field(default=None, init=False, repr=False)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, init=False, repr=False)

    async def instance(self, *, fresh: bool = False) -> RedisInstance:
        """The instance as listed within the last second, or `fresh`. ProbeBroken where there is none of that name."""
        if fresh:
            self.cloud.forget(Kind.MEMORYSTORE)
        found = (await self.cloud.snapshot(Kind.MEMORYSTORE)).find(self.resource)
        if found is None:
            raise ProbeBroken(f"address: project {self.cloud.project} has no Memorystore instance {self.resource.address}")
        return redis_instance(found)

    @property
    def has_way(self) -> bool:
        """Whether the inventory says how the server is reached; without, only the API and Cloud Monitoring are asked."""
        return self.monitor is not None or self.way.through is not None

    async def redis(self, instance: RedisInstance) -> Redis:
        """The server at its present address. NotApplicable: nothing says how to get in. Unreachable, ProbeBroken: there is no way to it."""
        if not self.has_way:
            raise NotApplicable(
                f"{self.resource.name}: the inventory names neither `logins.monitor`, with the AUTH string, nor `cloud.through`"
            )
        if instance.has_tls:
            raise NotApplicable(f"{self.resource.name}: it takes TLS only, which is not spoken here: only Cloud Monitoring measures it")
        if instance.has_auth and self.monitor is None:
            raise ProbeBroken(f"{self.resource.name}: AUTH is on; add `logins.monitor` with the AUTH string as its password")
        if not instance.host:
            raise Unreachable(f"{self.resource.name}: the instance has no address yet")
        host, port = await self.way.to(instance.host, instance.port)
        wanted = host, port, instance.has_auth
        async with self._turn:
            if self._redis is None or self._opened != wanted:
                await self._close_redis()
                password = self.monitor.password if self.monitor is not None and instance.has_auth else None
                self._redis, self._opened = open_redis(host, port, password=password), wanted
            return self._redis

    async def carry_out(self, what: str, verb: str, instance: RedisInstance, request: Callable[[Any], Any], *, seconds: float) -> str:
        """Start an operation with the request that `request` makes of the instances' API, or take up the like of it; wait for its end."""

        def send(timeout: float) -> Operation:
            made = request(self.cloud.redis_operations.projects().locations().instances())
            return redis_operation(self.cloud, self.cloud.execute(made, timeout))

        return await self.cloud.carry_out(
            f"{what} of {self.resource.name}",
            Kind.MEMORYSTORE,
            verb,
            listed=redis_operations(self.cloud, instance.path),
            send=send,
            seconds=seconds,
        )

    async def close(self) -> None:
        """Close the server's connections; the project and the way are closed by whoever opened them."""
        async with self._turn:
            await self._close_redis()

    async def _close_redis(self) -> None:
        redis, self._redis = self._redis, None
        if redis is not None:
            await redis.aclose()
