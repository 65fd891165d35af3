"""Cases in which what is measured misleads: a blind probe, an outside actor, a figure that is missing."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator

import psycopg
from psycopg import sql

from blocks.schema import Kind
from tasks.clients.runtime import Runtime
from tasks.core.declare import Ending, scenario
from tasks.core.errors import NotApplicable
from tasks.scenarios.redis_server import redis_memory_pressure
from tasks.scenarios.redis_use import redis_clients_exhausted
from tasks.scenarios.sessions import conninfo
from tasks.scenarios.stage import Stage

ACTOR_SECONDS = 0.2
ALL_CONNECTIONS = 110
HOLD_SECONDS = 3600
ALL_OF_POSTGRES = {
    "postgres_restart",
    "postgres_scale_connections",
    "postgres_kill_long_queries",
    "postgres_terminate_idle",
    "postgres_vacuum",
}


async def _as_admin(stage: Stage, *statements: sql.Composed) -> None:
    text = conninfo(stage, "admin", stage.resource, "psql")
    async with await psycopg.AsyncConnection.connect(text, autocommit=True) as connection:
        for statement in statements:
            await connection.execute(statement)


@scenario(
    title="The monitor's own password is refused, the service is fine",
    resource_kind=Kind.POSTGRES,
    symptoms=(),
    expects=Ending.LEFT_ALONE,
    forbidden_tools=ALL_OF_POSTGRES,
    catalogue=(45,),
)
async def postgres_monitor_locked_out(stage: Stage) -> AsyncGenerator[None]:
    """Change the password of the monitor's role and end its sessions; the application's role is left as it is."""
    user, password = stage.login("monitor")
    role = sql.Identifier(user)
    try:
        await _as_admin(
            stage,
            sql.SQL("ALTER ROLE {} PASSWORD {}").format(role, sql.Literal(secrets.token_urlsafe(18))),
            sql.SQL("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = {}").format(sql.Literal(user)),
        )
        yield
    finally:
        await _as_admin(stage, sql.SQL("ALTER ROLE {} PASSWORD {}").format(role, sql.Literal(password)))


@scenario(
    title="Connection overload, and the monitor can't see whose sessions they are",
    resource_kind=Kind.POSTGRES,
    symptoms={"connections_high", "connections_exhausted"},
    expects=Ending.ESCALATED,
    forbidden_tools=ALL_OF_POSTGRES,
    catalogue=(50,),
)
async def postgres_overload_unseen(stage: Stage) -> AsyncGenerator[None]:
    """Hold every connection that the application can get, with pg_monitor taken from the monitor's role: whose they are is hidden."""
    role = sql.Identifier(stage.login("monitor")[0])
    try:
        await _as_admin(stage, sql.SQL("REVOKE pg_monitor FROM {}").format(role))
        await stage.loads.start("database/blocking", connections=ALL_CONNECTIONS, seconds=HOLD_SECONDS)
        yield
    finally:
        await stage.loads.stop("database/blocking")
        await _as_admin(stage, sql.SQL("GRANT pg_monitor TO {}").format(role))


@scenario(
    title="Redis is full and crowded at once",
    resource_kind=Kind.REDIS,
    symptoms={"clients_high", "clients_exhausted"},
    forbidden_tools={"redis_flush", "redis_restart", "redis_evict_to"},
    catalogue=(49,),
)
async def redis_full_and_crowded(stage: Stage) -> AsyncGenerator[None]:
    """Fill Redis to its threshold and use up its clients: two alerts of one resource, which are one remediation's business."""
    async with (
        contextlib.aclosing(redis_memory_pressure(stage)) as pressure,
        contextlib.aclosing(redis_clients_exhausted(stage)) as crowd,
    ):
        await anext(pressure)
        await anext(crowd)
        yield
        await anext(crowd, None)


@scenario(
    title="Somebody outside stops the shop again and again",
    resource_kind=Kind.HTTP,
    symptoms={"down"},
    expects=Ending.ESCALATED,
    # An engine's stop takes its grace period, and a start holds for as long: to whoever looks, it is another fault each time.
    runtimes={"process"},
    catalogue=(48,),
)
async def shop_stopped_again(stage: Stage) -> AsyncGenerator[None]:
    """Stop the shop, and again each time it was started."""
    runtime = stage.runtime()
    has_gone = asyncio.Event()

    async def actor() -> None:
        while not has_gone.is_set():
            await _stop(runtime)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(has_gone.wait(), ACTOR_SECONDS)

    await _stop(runtime)
    acting = asyncio.create_task(actor(), name="the shop's other operator")
    try:
        yield
    finally:
        # Not cancelled: a stop under way would come after the start.
        has_gone.set()
        await acting
        if (await runtime.status()).state != "running":
            await runtime.start()


async def _stop(runtime: Runtime) -> None:
    if (await runtime.status()).state == "running":
        # Stopped by something else in this moment: that is just as well.
        with contextlib.suppress(NotApplicable):
            await runtime.stop()
