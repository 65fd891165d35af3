"""Rendered pages in the cache, as many as its memory is meant to hold."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field
from redis.asyncio import Redis
from redis.exceptions import RedisError
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from shop.cache import answering
from shop.errors import Conflict, Unavailable, first_line, parse_body

PAGE_TTL_SECONDS = 3600
# Long enough for 64 MB many times over, short enough for a client to wait.
FILL_SECONDS = 60.0
UNLINK_AT_ONCE = 500
BATCH_BYTES = 1 << 20
# What a key and its entry take beside the value.
ENTRY_BYTES = 160
SMALLEST_BYTES = 1024


class FillRequest(BaseModel):
    """Up to what share of maxmemory, and how large each value is."""

    model_config = ConfigDict(extra="forbid")

    percent: float = Field(ge=1, le=100)
    key_bytes: int = Field(default=48 * 1024, ge=1024, le=1024 * 1024, strict=True)


@dataclass(frozen=True)
class Memory:
    """`used_memory` and `maxmemory` of INFO memory, in bytes."""

    used_bytes: int
    limit_bytes: int

    @property
    def percent(self) -> float:
        """The share that is used."""
        return round(100 * self.used_bytes / self.limit_bytes, 2)


def _page(number: int, size: int) -> str:
    """HTML of `size` characters that differs from page to page."""
    row = f'<li class="product"><a href="/products/{number % 100 + 1}">Product {number}</a></li>\n'
    return (row * (size // len(row) + 1))[:size]


class CacheLoad:
    """POST, GET and DELETE /load/cache/fill."""

    def __init__(self, cache: Redis) -> None:
        self._cache = cache
        self._keys: list[str] = []
        self._numbers = itertools.count(1)
        self._changing = asyncio.Lock()

    def routes(self) -> list[Route]:
        """The endpoints."""
        path = "/load/cache/fill"
        return [
            Route(path, self.start, methods=["POST"]),
            Route(path, self.stop, methods=["DELETE"]),
            Route(path, self.show, methods=["GET"]),
        ]

    async def start(self, request: Request) -> JSONResponse:
        """Write pages until the share is reached, or the cache accepts no more; say which."""
        parameters = await parse_body(request, FillRequest)
        async with self._changing, answering(FILL_SECONDS):
            memory = await self._memory()
            target_bytes = memory.limit_bytes * parameters.percent / 100
            size, written_bytes, refusal = parameters.key_bytes, 0, None
            while memory.used_bytes < target_bytes and (refusal is None or size > SMALLEST_BYTES):
                # With an eviction policy the share may never be reached.
                if written_bytes > 2 * target_bytes:
                    refusal = "the cache evicts pages as fast as they come"
                    break
                if refusal is not None:
                    # A batch counts as memory while it arrives: smaller ones fill what is left.
                    size = max(size // 2, SMALLEST_BYTES)
                missing = int((target_bytes - memory.used_bytes) // (size + ENTRY_BYTES)) + 1
                count = min(missing, max(1, BATCH_BYTES // (size + ENTRY_BYTES)))
                refusal = await self._write(count, size)
                written_bytes += count * size
                memory = await self._memory()
        return JSONResponse({"used_memory_percent": memory.percent, "keys": len(self._keys), "refused": refusal})

    async def stop(self, _request: Request) -> JSONResponse:
        """Remove the pages that were written, and nothing else."""
        removed = await self._remove()
        memory = await self._memory()
        return JSONResponse({"removed": removed, "used_memory_percent": memory.percent})

    async def show(self, _request: Request) -> JSONResponse:
        """How many pages were written, and the share now."""
        return JSONResponse(await self.status())

    async def status(self) -> dict[str, object]:
        """`keys` written and not removed by DELETE; `used_memory_percent`, or `error` when the cache does not tell."""
        try:
            return {"keys": len(self._keys), "used_memory_percent": (await self._memory()).percent}
        except (Unavailable, Conflict) as error:
            return {"keys": len(self._keys), "used_memory_percent": None, "error": error.message}

    async def close(self, seconds: float) -> None:
        """Stop, in `seconds` at most; what cannot be removed expires."""
        try:
            async with asyncio.timeout(seconds):
                await self._remove()
        except (Unavailable, TimeoutError):
            self._keys.clear()

    async def _memory(self) -> Memory:
        async with answering():
            info = await self._cache.info("memory")
        memory = Memory(used_bytes=int(info["used_memory"]), limit_bytes=int(info["maxmemory"]))
        if memory.limit_bytes == 0:
            raise Conflict("the cache has no memory limit to fill: set its maxmemory")
        return memory

    async def _write(self, count: int, size: int) -> str | None:
        """Write `count` pages; None, or why the cache refused one of them."""
        numbers = list(itertools.islice(self._numbers, count))
        keys = [f"page:{hashlib.blake2s(str(number).encode(), digest_size=16).hexdigest()}" for number in numbers]
        # Remembered first: a write whose reply is lost may have happened.
        self._keys.extend(keys)
        async with self._cache.pipeline(transaction=False) as pipeline:
            for key, number in zip(keys, numbers, strict=True):
                pipeline.set(key, _page(number, size), ex=PAGE_TTL_SECONDS)
            replies = await pipeline.execute(raise_on_error=False)
        refusals = [reply for reply in replies if isinstance(reply, RedisError)]
        if refusals:
            del self._keys[-count:]
            self._keys.extend(key for key, reply in zip(keys, replies, strict=True) if not isinstance(reply, RedisError))
        return first_line(refusals[0]) if refusals else None

    async def _remove(self) -> int:
        async with self._changing, answering(FILL_SECONDS):
            removed = 0
            while self._keys:
                some = self._keys[-UNLINK_AT_ONCE:]
                removed += int(await self._cache.unlink(*some))
                del self._keys[-UNLINK_AT_ONCE:]
        return removed
