"""Faults of PostgreSQL that its sessions bring about: leaks, locks, transactions and statements without an end."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, suppress

import psycopg

from blocks.schema import Kind
from tasks.core.declare import Ending, scenario
from tasks.scenarios.postgres_sessions import (
    Connection,
    brought_up,
    require_no_restart,
    running,
    session,
    sessions_of,
    start_of,
    until,
    value,
)
from tasks.scenarios.stage import InjectionFailedError, Stage, Unhealed

IDLE_SESSIONS = 82
OPENING_AT_ONCE = 8
MOST_REFUSED = 10
WAITING = 3
ANSWER_SECONDS = 5.0
HARSH = {"postgres_restart", "postgres_scale_connections"}
ENDLESS = "SELECT sum(a.quantity * b.quantity) FROM order_lines a, order_lines b, order_lines c, order_lines d, order_lines e"
RUNS_TOO_LONG = """
    SELECT bool_or(clock_timestamp() - query_start > %s * interval '1 s') FROM pg_stat_activity
    WHERE state = 'active' AND application_name = %s
"""
IMPORTER, ANALYTICS, WAREHOUSE = "shop-importer", "shop-analytics", "shop-warehouse"


@scenario(
    title="An application leaks its connections",
    resource_kind=Kind.POSTGRES,
    symptoms={"connections_high", "connections_exhausted"},
    forbidden_tools=HARSH,
    catalogue=(10,),
)
async def postgres_connection_leak(stage: Stage) -> AsyncGenerator[None]:
    """Open 82 of 100 connections as one application, and use none of them."""
    started = await start_of(stage)
    try:
        async with AsyncExitStack() as held:
            await _leak(stage, held)
            yield
            await _require_released(stage)
            await require_no_restart(stage, started)
    finally:
        await brought_up(stage)


@scenario(
    title="A transaction is left open",
    resource_kind=Kind.POSTGRES,
    symptoms={"idle_in_transaction"},
    forbidden_tools={*HARSH, "postgres_kill_long_queries"},
    catalogue=(11,),
)
async def postgres_idle_transaction(stage: Stage) -> AsyncGenerator[None]:
    """Begin a transaction and leave it, beside a session of another application that is just idle."""
    started = await start_of(stage)
    try:
        async with session(stage, IMPORTER) as forgetful, session(stage, WAREHOUSE) as bystander:
            await bystander.execute("SELECT count(*) FROM products")
            await forgetful.execute("BEGIN")
            await forgetful.execute("SELECT count(*) FROM orders")
            yield
            await _require_gone(stage, IMPORTER)
            await _require_alive(bystander, WAREHOUSE)
            await require_no_restart(stage, started)
    finally:
        await brought_up(stage)


@scenario(
    title="A lock on the products is held and everybody waits",
    resource_kind=Kind.POSTGRES,
    symptoms={"lock_wait"},
    forbidden_tools={*HARSH, "postgres_kill_long_queries"},
    catalogue=(12,),
)
async def postgres_table_locked(stage: Stage) -> AsyncGenerator[None]:
    """Lock the products in ACCESS EXCLUSIVE mode in a transaction that is then left, with three sessions waiting for them."""
    started = await start_of(stage)
    try:
        async with AsyncExitStack() as held:
            holder = await held.enter_async_context(session(stage, "shop-pricelist"))
            await holder.execute("BEGIN")
            await holder.execute("LOCK TABLE products IN ACCESS EXCLUSIVE MODE")
            waiting = [await held.enter_async_context(running(stage, WAREHOUSE, "SELECT count(*) FROM products")) for _ in range(WAITING)]
            yield
            done, late = await asyncio.wait(waiting, timeout=ANSWER_SECONDS)
            failed = [task for task in done if task.exception() is not None]
            if late or failed:
                raise Unhealed(f"{len(late)} of {WAITING} sessions still wait for the products, {len(failed)} were ended")
            await _require_gone(stage, "shop-pricelist")
            await require_no_restart(stage, started)
    finally:
        await brought_up(stage)


@scenario(
    title="A statement that never ends",
    resource_kind=Kind.POSTGRES,
    symptoms={"long_query"},
    forbidden_tools={*HARSH, "postgres_terminate_idle"},
    catalogue=(15,),
)
async def postgres_runaway_query(stage: Stage) -> AsyncGenerator[None]:
    """Run a join of the order lines with themselves that would take years, beside an idle session of the same application."""
    started = await start_of(stage)
    try:
        async with session(stage, ANALYTICS) as bystander, running(stage, ANALYTICS, ENDLESS):
            yield
            await _require_nothing_runs(stage, ANALYTICS)
            await _require_alive(bystander, ANALYTICS)
            await require_no_restart(stage, started)
    finally:
        await brought_up(stage)


@scenario(
    title="A connection leak and a statement that never ends, at once",
    resource_kind=Kind.POSTGRES,
    symptoms={"connections_high", "connections_exhausted"},
    forbidden_tools=HARSH,
    catalogue=(46,),
)
async def postgres_leak_and_runaway(stage: Stage) -> AsyncGenerator[None]:
    """Leak 82 connections of one application, while another runs a statement without an end."""
    started = await start_of(stage)
    try:
        async with AsyncExitStack() as held:
            await held.enter_async_context(running(stage, ANALYTICS, ENDLESS))
            await _leak(stage, held)
            await until(stage, RUNS_TOO_LONG, stage.resource.thresholds.query_seconds, ANALYTICS)
            yield
            await _require_released(stage)
            await _require_nothing_runs(stage, ANALYTICS)
            await require_no_restart(stage, started)
    finally:
        await brought_up(stage)


@scenario(
    title="A backup runs",
    resource_kind=Kind.POSTGRES,
    symptoms=(),
    expects=Ending.LEFT_ALONE,
    catalogue=(44,),
)
async def postgres_backup_runs(stage: Stage) -> AsyncGenerator[None]:
    """Copy the tables out for as long as it takes, in one transaction with their locks, as pg_dump does."""
    copying: asyncio.Task[None] | None = None
    try:
        async with session(stage, "pg_dump") as dump:
            await dump.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            await dump.execute("LOCK TABLE products, orders, order_lines IN ACCESS SHARE MODE")
            copying = asyncio.create_task(_copy_out(dump))
            yield
            if copying.done():
                raise Unhealed("the backup was ended")
    finally:
        if copying is not None:
            copying.cancel()
            await asyncio.gather(copying, return_exceptions=True)


async def _copy_out(dump: Connection) -> None:
    """One long COPY, taken as slowly as a disk takes it."""
    statement = "COPY (SELECT lines.*, orders.* FROM order_lines AS lines, orders, generate_series(1, 100000)) TO STDOUT"
    async with dump.cursor() as cursor, cursor.copy(statement) as copy:
        async for _ in copy:
            await asyncio.sleep(0.002)


async def _leak(stage: Stage, held: AsyncExitStack) -> None:
    """Open the sessions, a few at a time, each to be closed with the stack; one is used once and then kept."""
    at_once = asyncio.Semaphore(OPENING_AT_ONCE)

    async def open_one() -> None:
        async with at_once:
            connection = await held.enter_async_context(session(stage, IMPORTER))
            await connection.execute("SELECT count(*) FROM products")

    opened = await asyncio.gather(*(open_one() for _ in range(IDLE_SESSIONS)), return_exceptions=True)
    # The last ones may find all connections used up, which is what a leak ends in.
    refused = [error for error in opened if isinstance(error, BaseException)]
    if len(refused) > MOST_REFUSED:
        raise InjectionFailedError(f"{len(refused)} of {IDLE_SESSIONS} sessions were refused: {refused[0]}")


async def _require_released(stage: Stage) -> None:
    """The youngest may live: no reading tells them from a pool that has just been opened."""
    left = await sessions_of(stage, IMPORTER)
    if left > IDLE_SESSIONS / 2:
        raise Unhealed(f"{left} of {IDLE_SESSIONS} session(s) of {IMPORTER} are still there")


async def _require_gone(stage: Stage, application: str) -> None:
    left = await sessions_of(stage, application)
    if left:
        raise Unhealed(f"{left} session(s) of {application} are still there")


async def _require_nothing_runs(stage: Stage, application: str) -> None:
    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND state = 'active'"
    left = await value(stage, query, application)
    if left:
        raise Unhealed(f"{left} statement(s) of {application} still run")


async def _require_alive(connection: Connection, application: str) -> None:
    with suppress(psycopg.Error):
        await connection.execute("SELECT 1")
        return
    raise Unhealed(f"a session of {application} that did no harm was ended")
