"""The application: its parts, its routes, and what happens when it starts and stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from redis.asyncio import Redis
from starlette.applications import Starlette

from shop.cache import open_cache
from shop.carts import Carts
from shop.catalogue import Catalogue
from shop.database import Database
from shop.errors import ShopError, Unavailable, answer_error, log_unavailable
from shop.health import Health
from shop.load.cache import CacheLoad
from shop.load.database import DatabaseLoad
from shop.load.nginx import NginxLoad
from shop.load.status import Loads
from shop.orders import Orders
from shop.seed import prepare_cache, prepare_database
from shop.settings import Settings

# A dependency that is up is seeded before the first request; one that is down holds nothing up.
PREPARE_SECONDS = 0.4
PREPARE_RETRY_SECONDS = 0.5


class Shop:
    """Everything that one process of the shop is made of."""

    def __init__(self, settings: Settings) -> None:
        self._database = Database(settings.database_url)
        self._cache: Redis = open_cache(settings.cache_url)
        self._catalogue = Catalogue(self._database)
        carts = Carts(self._cache)
        self.loads = Loads(
            {
                "database": DatabaseLoad(self._database),
                "cache": CacheLoad(self._cache),
                "nginx": NginxLoad(settings.public_url),
            }
        )
        self.app = Starlette(
            routes=[
                *self._catalogue.routes(),
                *carts.routes(),
                *Orders(self._database, carts).routes(),
                *Health(self._database, self._cache).routes(),
                *self.loads.routes(),
            ],
            exception_handlers={ShopError: answer_error},
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        await self._database.open()
        preparing = {asyncio.create_task(_until_available(step)) for step in (self._prepare_database, self._prepare_cache)}
        await asyncio.wait(preparing, timeout=PREPARE_SECONDS)
        try:
            yield
        finally:
            for task in preparing:
                task.cancel()
            await asyncio.wait(preparing, timeout=0.2)
            await self._catalogue.close()
            await self._database.close()
            await self._cache.aclose()

    async def _prepare_database(self) -> None:
        await self._database.run(prepare_database)
        await self._catalogue.refresh()

    async def _prepare_cache(self) -> None:
        await prepare_cache(self._cache)


async def _until_available(prepare: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            return await prepare()
        except Unavailable as error:
            log_unavailable(error.dependency, error.message)
        await asyncio.sleep(PREPARE_RETRY_SECONDS)
