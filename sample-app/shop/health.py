"""GET /healthz: which dependency fails, measured the way a customer would feel it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable

from redis.asyncio import Redis
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from shop.cache import answering
from shop.database import Connection, Database
from shop.errors import Unavailable, log_unavailable

CHECK_SECONDS = 0.9
# A full cache still accepts a tiny value.
VALUE_BYTES = 20 * 1024


class Health:
    """Checks each dependency under a deadline of its own, both at the same time."""

    def __init__(self, database: Database, cache: Redis) -> None:
        self._database = database
        self._cache = cache

    def routes(self) -> list[Route]:
        """GET /healthz."""
        return [Route("/healthz", self.show)]

    async def show(self, _request: Request) -> JSONResponse:
        """200 when every dependency is well, 503 otherwise, with the reason of each."""
        names = ("database", "cache")
        results = await asyncio.gather(self._measure(self._check_database()), self._measure(self._check_cache()))
        well = all(result["ok"] for result in results)
        body = {"status": "ok" if well else "failing", "dependencies": dict(zip(names, results, strict=True))}
        return JSONResponse(body, status_code=200 if well else 503)

    async def _check_database(self) -> None:
        async def select(connection: Connection) -> None:
            await connection.execute("SELECT 1 FROM products LIMIT 1")

        # A fresh connection: those of the pool go on working while new ones are refused.
        await self._database.run_fresh(CHECK_SECONDS, select)

    async def _check_cache(self) -> None:
        async with answering(CHECK_SECONDS):
            await self._cache.set("health:write", "x" * VALUE_BYTES, ex=5)

    @staticmethod
    async def _measure(check: Awaitable[None]) -> dict[str, object]:
        started = time.perf_counter()
        problem: str | None = None
        try:
            await check
        except Unavailable as error:
            problem = error.message
            log_unavailable(error.dependency, error.message)
        return {"ok": problem is None, "error": problem, "seconds": round(time.perf_counter() - started, 4)}
