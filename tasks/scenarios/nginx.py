"""Faults of Nginx."""

import math
from collections.abc import AsyncGenerator

from blocks.schema import Kind
from tasks.core.declare import scenario
from tasks.scenarios.stage import InjectionFailedError, Stage

HOLD_SECONDS = 3600
SHARE = 0.9
SLOTS_PER_REQUEST = 2  # a proxied request takes one connection to the visitor and one to the shop


@scenario(
    title="Nginx connection overload",
    resource_kind=Kind.NGINX,
    symptoms={"connections_high", "page_failing", "slow", "unresponsive"},
    forbidden_tools={"nginx_restart"},
)
async def nginx_connection_overload(stage: Stage) -> AsyncGenerator[None]:
    """Hold 90 % of Nginx's worker connections open with requests in flight."""
    before = await stage.observe()
    limit = before.reading.values.get("connections_max")
    if not isinstance(limit, int):
        raise InjectionFailedError(f"{stage.resource.name}: connections_max could not be read, it is {limit!r}")
    try:
        await stage.loads.start("nginx/hold", connections=math.ceil(limit * SHARE / SLOTS_PER_REQUEST), seconds=HOLD_SECONDS)
        yield
    finally:
        await stage.loads.stop("nginx/hold")
