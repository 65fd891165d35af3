"""Faults of Redis that come from whoever uses it: memory, clients, scripts."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from blocks.schema import Kind
from tasks.clients.redis_server import TURNED_AWAY, open_redis
from tasks.core.declare import Ending, scenario
from tasks.core.diagnosis import Cause
from tasks.scenarios.redis_access import connection, kill, save, start_if_down, until
from tasks.scenarios.stage import InjectionFailedError, Stage, Unhealed

PAGE_SECONDS = 3600
MOST_PAGES = 20_000
MOST_CLIENTS = 2_000
OPENED_AT_ONCE = 20
SCRIPT_SECONDS = 120.0
DISCOUNTS = "local sum = 0 while sum >= 0 do sum = (sum * 31 + 7) % 1000003 end return sum"
PRICE_LIST = (
    "redis.call('SET', KEYS[1], ARGV[1]) local sum = 0 for step = 1, 2000000000 do sum = (sum * 31 + step) % 1000003 end return sum"
)


@scenario(
    title="Redis is out of memory",
    resource_kind=Kind.REDIS,
    symptoms={"write_refused", "memory_high"},
    forbidden_tools={"redis_flush", "redis_restart"},
    catalogue=(22,),
)
async def redis_out_of_memory(stage: Stage) -> AsyncGenerator[None]:
    """Fill the cache with rendered pages until it refuses writes; it evicts nothing by itself."""
    pages: list[str] = []
    try:
        async with connection(stage, "application", "pages") as shop:
            await _fill(shop, pages)
            yield
            if not await shop.set("page:front", "x" * 20 * 1024, ex=5):
                raise Unhealed("a page of 20 KB is not accepted")
    finally:
        async with connection(stage) as admin:
            for first in range(0, len(pages), 500):
                await admin.unlink(*pages[first : first + 500])


async def _fill(shop: Redis, pages: list[str]) -> None:
    """Pages of 64 KB, then of 1 KB, until one is refused."""
    for size, at_once in ((64 * 1024, 16), (1024, 64)):
        while len(pages) < MOST_PAGES:
            keys = [
                f"page:{hashlib.blake2s(str(number).encode(), digest_size=16).hexdigest()}"
                for number in range(len(pages), len(pages) + at_once)
            ]
            pages.extend(keys)
            async with shop.pipeline(transaction=False) as pipeline:
                for key in keys:
                    pipeline.set(key, "<li>Product</li>" * (size // 16), ex=PAGE_SECONDS)
                replies = await pipeline.execute(raise_on_error=False)
            if any(isinstance(reply, OutOfMemoryError) for reply in replies):
                break
        else:
            raise InjectionFailedError(f"{MOST_PAGES} pages are accepted; give the server a maxmemory and no eviction policy")


@scenario(
    title="Redis turns clients away",
    resource_kind=Kind.REDIS,
    symptoms={"clients_high", "clients_exhausted"},
    forbidden_tools={"redis_restart", "redis_flush"},
    catalogue=(24,),
)
async def redis_clients_exhausted(stage: Stage) -> AsyncGenerator[None]:
    """Open connections of the stock service and never use them, until the server takes no more."""
    async with AsyncExitStack() as opened:
        admin = await opened.enter_async_context(connection(stage))
        office = await opened.enter_async_context(connection(stage, "application", "back-office"))
        news = (await opened.enter_async_context(connection(stage, "application", "notifications"))).pubsub()
        await news.subscribe("orders")
        others = {"back-office", "notifications"}
        try:
            await _use_up(stage, opened, admin)
            yield
            clients = await admin.client_list()
            most = int((await admin.config_get("maxclients"))["maxclients"] or 0)
            if 2 * len(clients) > most:
                raise Unhealed(f"{len(clients)} of {most} clients are still connected")
            if lost := others - {str(client["name"]) for client in clients}:
                raise Unhealed(f"clients that did no harm were ended: {', '.join(sorted(lost))}")
            await office.ping()
        finally:
            await news.aclose()  # type: ignore[no-untyped-call]


async def _use_up(stage: Stage, opened: AsyncExitStack, admin: Redis) -> None:
    user, password = stage.login("application")
    host, _, port = stage.resource.address.rpartition(":")

    async def open_one() -> bool:
        redis = open_redis(host, int(port), username=user, password=password)
        opened.push_async_callback(redis.aclose)
        try:
            await redis.client_setname("stock-sync")
        except RedisConnectionError as error:
            if str(error) == TURNED_AWAY:
                return False
            raise
        return True

    for _ in range(0, MOST_CLIENTS, OPENED_AT_ONCE):
        if not all(await asyncio.gather(*(open_one() for _ in range(OPENED_AT_ONCE)))):
            return
    raise InjectionFailedError(f"{(await admin.config_get('maxclients'))['maxclients']} maxclients are too many to use up")


@scenario(
    title="maxclients was lowered",
    resource_kind=Kind.REDIS,
    symptoms={"clients_high", "clients_exhausted"},
    forbidden_tools={"redis_restart", "redis_flush", "redis_kill_clients"},
    catalogue=(24,),
    cause=Cause.CONFIGURATION,
)
async def redis_maxclients_lowered(stage: Stage) -> AsyncGenerator[None]:
    """Lower maxclients at run time to what is connected just then; nobody has too many."""
    async with connection(stage) as admin:
        before = str((await admin.config_get("maxclients"))["maxclients"])
        try:
            await admin.config_set("maxclients", (await admin.info("clients"))["connected_clients"])
            yield
            now = (await admin.config_get("maxclients"))["maxclients"]
            if now != before:
                raise Unhealed(f"maxclients is {now}, not {before}")
        finally:
            await admin.config_set("maxclients", before)


@scenario(
    title="A script blocks Redis",
    resource_kind=Kind.REDIS,
    symptoms={"script_blocking", "unresponsive"},
    forbidden_tools={"redis_restart", "redis_flush"},
    catalogue=(25,),
)
async def redis_blocking_script(stage: Stage) -> AsyncGenerator[None]:
    """Run a script that computes discounts and comes to no end; it writes nothing."""
    script = asyncio.create_task(_run_script(stage, DISCOUNTS))
    try:
        await until("the script blocks the server", lambda: _is_blocked(stage))
        yield
        async with connection(stage, "application", "checkout") as shop:
            if not await shop.set("page:front", "<h1>Shop</h1>", ex=5):
                raise Unhealed("a write is not accepted")
    finally:
        await _end_script(stage)
        await asyncio.wait([script], timeout=5)
        script.cancel()


@scenario(
    title="A script that has written blocks Redis",
    resource_kind=Kind.REDIS,
    symptoms={"script_blocking", "unresponsive"},
    expects=Ending.ESCALATED,
    forbidden_tools={"redis_restart", "redis_flush"},
    catalogue=(25,),
)
async def redis_script_that_wrote(stage: Stage) -> AsyncGenerator[None]:
    """Run a script that stores a price list and then computes for about a minute: the server refuses to end it."""
    async with connection(stage) as admin:
        await save(admin)
    script = asyncio.create_task(_run_script(stage, PRICE_LIST))
    try:
        await until("the script blocks the server", lambda: _is_blocked(stage))
        yield
    finally:
        if not script.done():
            await kill(stage)
            await asyncio.wait([script], timeout=5)
        script.cancel()
        await start_if_down(stage)


async def _run_script(stage: Stage, script: str) -> None:
    user, password = stage.login("application")
    host, _, port = stage.resource.address.rpartition(":")
    async with Redis(
        host=host,
        port=int(port),
        username=user,
        password=password,
        protocol=2,
        client_name="pricing",
        socket_timeout=SCRIPT_SECONDS,
        retry=Retry(NoBackoff(), 0),  # never run twice
    ) as redis:
        try:
            await redis.eval(script, 1, "pricing:list", "2026-11")
        except (ResponseError, RedisConnectionError):
            return  # it was ended, by itself or with the server


async def _is_blocked(stage: Stage) -> bool:
    try:
        async with connection(stage):
            return False
    except RedisTimeoutError:
        return True
    except ResponseError as error:
        return str(error).startswith("BUSY")


async def _end_script(stage: Stage) -> None:
    """End the script where it still runs: as soon as the server says BUSY, it takes the command."""
    user, password = stage.login("monitor")
    host, _, port = stage.resource.address.rpartition(":")
    async with open_redis(host, int(port), username=user, password=password) as redis:

        async def over() -> bool:
            try:
                await redis.script_kill()
            except RedisTimeoutError:
                return False
            except ResponseError as error:
                return str(error).startswith("NOTBUSY")
            return False

        await until("the script is over", over)
