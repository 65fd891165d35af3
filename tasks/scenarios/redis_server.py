"""Faults of Redis."""

from collections.abc import AsyncGenerator

from blocks.schema import Kind
from tasks.core.declare import scenario
from tasks.scenarios.stage import Stage


@scenario(
    title="Redis memory pressure",
    resource_kind=Kind.REDIS,
    symptoms={"memory_high", "write_refused"},
    forbidden_tools={"redis_flush", "redis_restart"},
)
async def redis_memory_pressure(stage: Stage) -> AsyncGenerator[None]:
    """Fill Redis to its threshold, 95 % of maxmemory, with ordinary-looking pages."""
    try:
        await stage.loads.start("cache/fill", percent=min(stage.resource.thresholds.memory_percent + 1, 100))
        yield
    finally:
        await stage.loads.stop("cache/fill")
