"""Faults of the process that runs Redis, and of the files it starts from."""

import asyncio
import shutil
from collections.abc import AsyncGenerator
from contextlib import suppress
from pathlib import Path

from redis.asyncio import Redis

from blocks.schema import Kind
from tasks.clients.redis_aof import last_increment
from tasks.core.declare import Ending, scenario
from tasks.core.errors import EvenkeelError
from tasks.core.redis_config import settings_of
from tasks.scenarios.redis_access import connection, kill, save, start_if_down, until
from tasks.scenarios.stage import InjectionFailedError, Stage, Unhealed

LOST_BYTES = 9
BLOCK = b"\0" * 4096


@scenario(
    title="Redis is down, and the shop with it",
    resource_kind=Kind.REDIS,
    symptoms={"down"},
    forbidden_tools={"http_restart", "nginx_restart", "nginx_reload", "postgres_restart", "redis_flush"},
    catalogue=(47,),
)
async def redis_down_behind_the_shop(stage: Stage) -> AsyncGenerator[None]:
    """End Redis by force; the shop behind it answers with errors, and needs nothing but its Redis."""
    async with connection(stage) as admin:
        await save(admin)
        keys = await admin.dbsize()
    try:
        await kill(stage)
        yield
        async with connection(stage) as admin:
            if await admin.dbsize() < keys // 2:
                raise Unhealed(f"{await admin.dbsize()} keys are back of {keys}")
    finally:
        await start_if_down(stage)


@scenario(
    title="Redis can't read its append-only file",
    resource_kind=Kind.REDIS,
    symptoms={"aof_broken"},
    expects=Ending.ESCALATED,
    forbidden_tools={"redis_flush"},
    runtimes={"process"},
    catalogue=(28,),
)
async def redis_aof_cut_short(stage: Stage) -> AsyncGenerator[None]:
    """Leave the append-only file as after a power cut: its last write is half there, and the rest of the block is zeros."""
    path = stage.client().resource.config_path
    if path is None:
        raise InjectionFailedError(f"resources.{stage.resource.name}.config_path: the inventory names none, and this fault needs it")
    file = Path(path)
    configuration = await asyncio.to_thread(file.read_bytes)
    increment, content = None, b""
    try:
        async with connection(stage) as admin:
            await save(admin)
            await admin.config_set("appendonly", "yes")
            await until("the append-only file is written", lambda: _appends(admin))
            await admin.config_rewrite()
            await admin.set("page:offers", "<h1>Offers</h1>", ex=3600)
        await kill(stage)
        increment = last_increment(settings_of(file.read_text(encoding="utf-8")))
        content = increment.read_bytes()
        increment.write_bytes(content[:-LOST_BYTES] + BLOCK)
        with suppress(EvenkeelError):  # it does not start, as it should be
            await stage.runtime().start()
        yield
    finally:
        if increment is not None and (await stage.runtime().status()).state != "running":
            increment.write_bytes(content)
        await start_if_down(stage)
        async with connection(stage) as admin:
            await admin.delete("page:offers")
            await admin.config_set("appendonly", "no")
            await save(admin)
        file.write_bytes(configuration)
        if increment is not None:
            await asyncio.to_thread(shutil.rmtree, increment.parent)


async def _appends(admin: Redis) -> bool:
    info = await admin.info("persistence")
    return bool(info["aof_enabled"]) and not info["aof_rewrite_in_progress"] and not info["aof_rewrite_scheduled"]
