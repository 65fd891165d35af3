"""Redis for the application: one client with short timeouts, and its errors as the shop's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from shop.errors import Unavailable, first_line

OPERATION_SECONDS = 1.0


def open_cache(url: str) -> Redis:
    """A client that connects on first use, retries once on a dropped connection, and never waits longer than a second."""
    pool = BlockingConnectionPool.from_url(
        url,
        client_name="shop",
        decode_responses=True,
        max_connections=32,
        timeout=OPERATION_SECONDS,
        socket_timeout=OPERATION_SECONDS,
        socket_connect_timeout=OPERATION_SECONDS / 2,
        retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
    )
    return Redis.from_pool(pool)


@asynccontextmanager
async def answering(seconds: float = 2 * OPERATION_SECONDS) -> AsyncIterator[None]:
    """Give what is inside `seconds` in all, and turn what the client raises into Unavailable."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except (RedisError, OSError) as error:
        raise Unavailable("cache", first_line(error)) from error
