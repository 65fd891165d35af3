"""Faults of Nginx's connections, and loads that are none."""

import asyncio
import math
from collections.abc import AsyncGenerator

from blocks.schema import Kind
from tasks.clients.nginx import NginxClient
from tasks.clients.polling import poll
from tasks.core.declare import Ending, scenario
from tasks.core.nginx_config import EVENTS, with_value
from tasks.scenarios.nginx_configuration import kept_configuration, load_text, require_pages
from tasks.scenarios.stage import InjectionFailedError, Stage, Unhealed

HOLD_SECONDS = 3600
SHARE = 0.9
SMALL_LIMIT = 32
SMALL_SHARE = 0.85
SWING_SHARE = 0.55
SWING_SECONDS = 1.0
SEEN_SECONDS = 5.0
RELEASE_SECONDS = 10.0
SLOTS_PER_REQUEST = 2  # a proxied request takes one connection to the visitor and one to the shop
CHANGES = ("nginx_scale_connections", "nginx_clear_connections", "nginx_reload", "nginx_restart", "nginx_revert_config")


@scenario(
    title="Nginx connection overload",
    resource_kind=Kind.NGINX,
    symptoms={"connections_high", "page_failing", "slow", "unresponsive"},
    forbidden_tools={"nginx_restart"},
)
async def nginx_connection_overload(stage: Stage) -> AsyncGenerator[None]:
    """Hold 90 % of Nginx's worker connections open with requests in flight."""
    limit = await _limit(stage)
    try:
        await stage.loads.start("nginx/hold", connections=_requests(limit, SHARE), seconds=HOLD_SECONDS)
        yield
        await require_pages(stage)
    finally:
        await stage.loads.stop("nginx/hold")


@scenario(
    title="A limit of connections that is too small",
    resource_kind=Kind.NGINX,
    symptoms={"connections_high"},
    forbidden_tools={"nginx_restart"},
    catalogue=(31,),
)
async def nginx_small_limit(stage: Stage) -> AsyncGenerator[None]:
    """Load a worker_connections of 32, which a dozen downloads use up."""
    async with kept_configuration(stage) as original:
        try:
            await load_text(stage, with_value(original, "worker_connections", str(SMALL_LIMIT), EVENTS))
            await stage.loads.start("nginx/hold", connections=_requests(SMALL_LIMIT, SMALL_SHARE), seconds=HOLD_SECONDS)
            yield
            client: NginxClient = stage.client()
            usage = client.usage(await client.require_processes())
            if usage.maximum is None or usage.maximum <= SMALL_LIMIT:
                raise Unhealed(f"{stage.resource.name}: the workers may hold {usage.maximum} connections, no more than before")
            await require_pages(stage)
        finally:
            await stage.loads.stop("nginx/hold")


@scenario(
    title="Traffic that swings below the threshold",
    resource_kind=Kind.NGINX,
    symptoms=(),
    expects=Ending.LEFT_ALONE,
    forbidden_tools=CHANGES,
    catalogue=(41,),
)
async def nginx_traffic_swings(stage: Stage) -> AsyncGenerator[None]:
    """Let downloads come and go that take up to 55 % of the connections."""
    requests = _requests(await _limit(stage), SWING_SHARE)

    async def swing() -> None:
        while True:
            await stage.loads.start("nginx/hold", connections=requests, seconds=HOLD_SECONDS)
            await asyncio.sleep(SWING_SECONDS)
            await stage.loads.stop("nginx/hold")
            await asyncio.sleep(SWING_SECONDS)

    swinging = asyncio.ensure_future(swing())
    try:
        await asyncio.sleep(2 * SWING_SECONDS)
        if swinging.done():
            swinging.result()
        yield
    finally:
        swinging.cancel()
        await asyncio.gather(swinging, return_exceptions=True)
        await stage.loads.stop("nginx/hold")


@scenario(
    title="A peak that is over before anybody acts",
    resource_kind=Kind.NGINX,
    symptoms=(),
    expects=Ending.LEFT_ALONE,
    forbidden_tools=CHANGES,
    catalogue=(42,),
)
async def nginx_short_peak(stage: Stage) -> AsyncGenerator[None]:
    """Hold 90 % of the connections until it is measured once, then let go."""
    limit = await _limit(stage)

    async def is_seen() -> bool | None:
        return True if (await stage.observe()).findings else None

    async def is_released() -> bool | None:
        return None if (await stage.observe()).findings else True

    try:
        await stage.loads.start("nginx/hold", connections=_requests(limit, SHARE), seconds=HOLD_SECONDS)
        seen = await poll(is_seen, seconds=SEEN_SECONDS)
        await stage.loads.stop("nginx/hold")
        if seen is None:
            raise InjectionFailedError(f"{stage.resource.name}: the peak was not measured within {SEEN_SECONDS:g} s")
        if await poll(is_released, seconds=RELEASE_SECONDS) is None:
            raise InjectionFailedError(f"{stage.resource.name}: the connections are held {RELEASE_SECONDS:g} s after the downloads ended")
        yield
    finally:
        await stage.loads.stop("nginx/hold")


async def _limit(stage: Stage) -> int:
    limit = (await stage.observe()).reading.values.get("connections_max")
    if not isinstance(limit, int):
        raise InjectionFailedError(f"{stage.resource.name}: connections_max could not be read, it is {limit!r}")
    return limit


def _requests(limit: int, share: float) -> int:
    return math.ceil(limit * share / SLOTS_PER_REQUEST)
