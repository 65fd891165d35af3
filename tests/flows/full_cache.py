"""A full cache that Gemini is asked about, case after case, and how it must not be left."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from pydantic import SecretStr
from redis.asyncio import Redis

from blocks.gemini import GeminiBlock
from blocks.gemini_settings import GeminiSettings
from compose.description import LabDescription
from tasks.connecting import Live
from tasks.core.models import FixRecord
from tests.flows.cache_fault import maxmemory_mib
from tests.scripted_gemini import API_KEY

FOUND_MIB = 64
PATIENT = {"timeout_seconds": 5, "total_seconds": 15}


def block(port: int, patience: Mapping[str, float] = PATIENT) -> GeminiBlock:
    """Gemini at that port."""
    settings = GeminiSettings(model="gemini-test", base_url=f"http://127.0.0.1:{port}", tokens_per_day=10**9, **patience)
    return GeminiBlock(settings=settings, api_key=SecretStr(API_KEY))


class Condition(NamedTuple):
    """What must not be worse afterwards."""

    run_id: str
    policy: str
    carts: str
    test_pages: int
    evicted: int


async def condition(redis: Redis) -> Condition:
    """As the server itself says."""
    info = await redis.info()
    keys = [key async for key in redis.scan_iter(match="*", count=10_000)]
    carts = sorted(key for key in keys if key.startswith(b"cart:customer-"))
    digest = hashlib.sha256()
    async with redis.pipeline(transaction=False) as pipeline:
        for key in carts:
            pipeline.hgetall(key)
        for key, cart in zip(carts, await pipeline.execute(), strict=True):
            digest.update(repr((key, sorted(cart.items()))).encode())
    assert carts
    pages = sum(key.startswith(b"page:test-") for key in keys)
    return Condition(info["run_id"], info["maxmemory_policy"], digest.hexdigest(), pages, info["evicted_keys"])


async def fill_up(redis: Redis) -> None:
    """Up to 96 % of maxmemory; what is there from the case before counts."""
    number = 0
    while True:
        memory = await redis.info("memory")
        if memory["used_memory"] >= 0.96 * memory["maxmemory"]:
            return
        if await redis.set(f"page:test-{number}", b"x" * 200_000, nx=True) is None:
            number += 1


@dataclass
class Ground:
    """A full cache, its inventory with a Gemini block, and the port where the block expects the model."""

    lab: LabDescription
    port: int
    opened: Live
    redis: Redis
    before: Condition
    since: datetime

    async def record(self) -> FixRecord:
        """The one fix that was recorded, checked for what holds in every case."""
        records = await self.opened.records.history(inventory="lab", since=self.since, limit=5)
        assert len(records) == 1
        assert API_KEY not in records[0].model_dump_json()
        return records[0]

    async def assert_no_worse(self) -> None:
        assert await condition(self.redis) == self.before
        assert await maxmemory_mib(self.lab) >= FOUND_MIB
