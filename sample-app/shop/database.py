"""PostgreSQL for the application: a pool that mends itself, and a deadline around everything."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from shop.errors import Unavailable, first_line

Result = TypeVar("Result")
Connection = AsyncConnection[tuple[Any, ...]]

OPERATION_SECONDS = 1.5
CHECKOUT_SECONDS = 1.0
# libpq rounds anything shorter up to this.
CONNECT_SECONDS = 2

_winding_down: set[asyncio.Task[Any]] = set()


def _forget(task: asyncio.Task[Any]) -> None:
    _winding_down.discard(task)
    if not task.cancelled():
        task.exception()


async def within(seconds: float, operation: Coroutine[Any, Any, Result]) -> Result:
    """Return the result of `operation`, or raise TimeoutError after `seconds`.

    A cancelled query waits up to 5 s for the server to confirm, so a late operation winds down on its own while the
    caller goes on.
    """
    task = asyncio.ensure_future(operation)
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        if not task.done():
            task.cancel()
            _winding_down.add(task)
            task.add_done_callback(_forget)
    if not task.done():
        raise TimeoutError(f"no answer within {seconds:g} s")
    return task.result()


class Database:
    """The shop's connections to PostgreSQL: a small pool for requests, fresh connections for checks."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            url,
            kwargs={"application_name": "shop", "connect_timeout": CONNECT_SECONDS},
            min_size=2,
            max_size=10,
            timeout=CHECKOUT_SECONDS,
            # Give up at once and try again with the next request: the backoff would outlast the outage.
            reconnect_timeout=0,
            check=self._check,
            open=False,
            name="shop",
        )

    async def _check(self, connection: Connection) -> None:
        try:
            await AsyncConnectionPool.check_connection(connection)
        except psycopg.OperationalError:
            # The server has dropped one, so it has probably dropped all.
            await self._pool.drain()
            raise

    async def open(self) -> None:
        """Start connecting, without waiting for the server."""
        await self._pool.open(wait=False)

    async def close(self) -> None:
        """Close every pooled connection."""
        await self._pool.close(timeout=0.3)

    async def run(self, operation: Callable[[Connection], Awaitable[Result]]) -> Result:
        """Run `operation` in one transaction on a pooled connection. Raises Unavailable."""

        async def transaction() -> Result:
            async with self._pool.connection() as connection:
                return await operation(connection)

        return await self._answer(OPERATION_SECONDS, transaction())

    async def run_fresh(self, seconds: float, operation: Callable[[Connection], Awaitable[Result]]) -> Result:
        """Run `operation` on a connection of its own, in `seconds` at most. Raises Unavailable."""

        async def session() -> Result:
            async with await self.connect("shop-health") as connection:
                return await operation(connection)

        return await self._answer(seconds, session())

    async def connect(self, application_name: str) -> Connection:
        """Open a connection outside the pool, in autocommit mode. Raises psycopg.Error."""
        return await AsyncConnection.connect(self._url, application_name=application_name, autocommit=True, connect_timeout=CONNECT_SECONDS)

    @staticmethod
    async def _answer(seconds: float, operation: Coroutine[Any, Any, Result]) -> Result:
        try:
            return await within(seconds, operation)
        except (psycopg.Error, OSError) as error:
            # TimeoutError is an OSError.
            raise Unavailable("database", first_line(error)) from error
