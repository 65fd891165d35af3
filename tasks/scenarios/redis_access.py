"""How scenarios reach the Redis they hurt: connections of their own, and the process that runs it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from blocks.schema import Purpose
from tasks.clients.polling import poll
from tasks.clients.redis_server import open_redis
from tasks.scenarios.stage import InjectionFailedError, Stage

EFFECT_SECONDS = 10.0


@asynccontextmanager
async def connection(stage: Stage, purpose: Purpose = "monitor", name: str = "") -> AsyncIterator[Redis]:
    """One connection, made at once: it goes on when nobody else gets in any more."""
    user, password = stage.login(purpose)
    host, _, port = stage.resource.address.rpartition(":")
    async with open_redis(host, int(port), username=user, password=password) as redis, redis.client() as own:
        await own.ping()
        if own.connection is not None:  # whoever takes a fault back may find that the server was restarted meanwhile
            own.connection.retry = Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,))
        if name:
            await own.client_setname(name)
        yield own


async def until(what: str, shown: Callable[[], Awaitable[bool]]) -> None:
    """Wait up to 10 s until it shows; InjectionFailedError names it otherwise."""

    async def attempt() -> bool | None:
        return await shown() or None

    if not await poll(attempt, seconds=EFFECT_SECONDS, every_seconds=0.05):
        raise InjectionFailedError(f"{what}: does not show within {EFFECT_SECONDS:g} s")


async def save(redis: Redis) -> None:
    """See everything that is stored reach the disk, so that an end by force loses nothing."""

    async def saved() -> bool:
        return not (await redis.info("persistence"))["rdb_bgsave_in_progress"]

    await until("an earlier save is over", saved)
    await redis.save()


async def kill(stage: Stage) -> None:
    """End the process by force, and see it gone."""
    runtime = stage.runtime()
    await runtime.signal("SIGKILL")

    async def gone() -> bool:
        return (await runtime.status()).state != "running"

    await until("the process is gone", gone)


async def start_if_down(stage: Stage) -> None:
    """Start the process where it does not run."""
    runtime = stage.runtime()
    if (await runtime.status()).state != "running":
        await runtime.start()
