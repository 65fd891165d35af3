"""Faults of PostgreSQL's tables and files: a missing index, dead rows, WAL kept for nobody, a damaged page."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, suppress

import psycopg
from psycopg.sql import SQL, Literal

from blocks.schema import Kind
from tasks.core.declare import Ending, scenario
from tasks.scenarios.postgres_sessions import (
    OPERATOR,
    Connection,
    as_admin,
    brought_up,
    require_no_restart,
    session,
    start_of,
    until,
    value,
)
from tasks.scenarios.stage import InjectionFailedError, Stage, Unhealed

SEARCHING = 2
PAUSE_SECONDS = 0.04
SEGMENT_MIB = 16
PAGE_BYTES = 8192
RESTART = {"postgres_restart", "postgres_scale_connections"}
CHECKSUM = "SELECT md5(string_agg(id::text || visitor, '|' ORDER BY id)) FROM visits"


@scenario(
    title="A search reads a large table whole, for want of an index",
    resource_kind=Kind.POSTGRES,
    symptoms={"table_scans"},
    expects=Ending.ESCALATED,
    forbidden_tools=RESTART,
    catalogue=(13,),
)
async def postgres_index_missing(stage: Stage) -> AsyncGenerator[None]:
    """Look for a customer's old orders again and again, in a table of 80,000 without an index on the customer."""
    searching: list[asyncio.Task[None]] = []
    try:
        async with AsyncExitStack() as held:
            sessions = [await held.enter_async_context(session(stage, "shop-orders")) for _ in range(SEARCHING)]
            await sessions[0].execute(
                "CREATE TABLE old_orders (id integer PRIMARY KEY, customer text NOT NULL, total_cents integer NOT NULL)"
            )
            await sessions[0].execute(
                "INSERT INTO old_orders SELECT n, 'customer-' || n % 5000, n % 9000 + 495 FROM generate_series(1, 80000) AS n"
            )
            await sessions[0].execute("ANALYZE old_orders")
            searching += [asyncio.create_task(_search(one)) for one in sessions]
            yield
    finally:
        for task in searching:
            task.cancel()
        await asyncio.gather(*searching, return_exceptions=True)
        await brought_up(stage)
        await as_admin(stage, "DROP TABLE IF EXISTS old_orders")


async def _search(connection: Connection) -> None:
    number = 0
    while True:
        number += 1
        await connection.execute("SELECT sum(total_cents) FROM old_orders WHERE customer = %s", [f"customer-{number % 5000}"])
        await asyncio.sleep(PAUSE_SECONDS)


@scenario(
    title="Nothing cleans up behind the writers",
    resource_kind=Kind.POSTGRES,
    symptoms={"dead_rows"},
    forbidden_tools=RESTART,
    catalogue=(14,),
)
async def postgres_autovacuum_off(stage: Stage) -> AsyncGenerator[None]:
    """Turn autovacuum off for a table of visits, and write every row of it three times."""
    started = await start_of(stage)
    try:
        async with session(stage, "shop-visits") as shop:
            await shop.execute("CREATE TABLE visits (id integer PRIMARY KEY, visitor text, pages integer) WITH (autovacuum_enabled = off)")
            await shop.execute("INSERT INTO visits SELECT n, 'visitor-' || n % 700, 1 FROM generate_series(1, 15000) AS n")
            for _ in range(3):
                await shop.execute("UPDATE visits SET pages = pages + 1")
            await shop.execute("SELECT pg_stat_force_next_flush()")
        checksum = await value(stage, CHECKSUM)
        yield
        dead = await value(stage, "SELECT pg_stat_get_dead_tuples('visits'::regclass)")
        options = await value(stage, "SELECT array_to_string(reloptions, ',') FROM pg_class WHERE oid = 'visits'::regclass")
        if dead > 1000 or "autovacuum_enabled=off" in (options or ""):
            raise Unhealed(f"visits has {dead} dead rows and the options {options}")
        if await value(stage, CHECKSUM) != checksum:
            raise Unhealed("rows of the visits were changed")
        await require_no_restart(stage, started)
    finally:
        await brought_up(stage)
        await as_admin(stage, "DROP TABLE IF EXISTS visits")


@scenario(
    title="A standby that is gone has left its replication slot",
    resource_kind=Kind.POSTGRES,
    symptoms={"wal_retained"},
    expects=Ending.ESCALATED,
    forbidden_tools=RESTART,
    catalogue=(16,),
)
async def postgres_slot_left(stage: Stage) -> AsyncGenerator[None]:
    """Make a replication slot that nobody reads, and write as much WAL as the threshold has, and one file more."""
    slot = "standby_eu"
    segments = int(stage.resource.thresholds.retained_wal_mib // SEGMENT_MIB) + 1
    if segments > 64:
        raise InjectionFailedError(f"{stage.resource.name}: thresholds.retained_wal_mib is {segments * SEGMENT_MIB}; lower it for a lab")
    try:
        async with session(stage, OPERATOR, "admin") as operator:
            await operator.execute("SELECT pg_create_physical_replication_slot(%s, true)", [slot])
            for _ in range(segments):
                await operator.execute("SELECT pg_logical_emit_message(false, 'shop', 'prices updated'), pg_switch_wal()")
        yield
    finally:
        await brought_up(stage)
        await as_admin(
            stage,
            SQL("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = {}").format(Literal(slot)),
            "CHECKPOINT",
        )


@scenario(
    title="A page of a table is damaged on the disk",
    resource_kind=Kind.POSTGRES,
    symptoms={"pages_damaged"},
    expects=Ending.ESCALATED,
    forbidden_tools={*RESTART, "postgres_vacuum"},
    runtimes={"process"},
    catalogue=(21,),
)
async def postgres_page_damaged(stage: Stage) -> AsyncGenerator[None]:
    """Overwrite a few bytes in the file of a table of its own, and read the table."""
    if await value(stage, "SELECT current_setting('data_checksums')") != "on":
        raise InjectionFailedError(f"{stage.resource.name}: its pages have no checksums, so a damaged one does not show")
    try:
        await as_admin(
            stage,
            "CREATE TABLE newsletters (id integer, recipient text) WITH (autovacuum_enabled = off)",
            "INSERT INTO newsletters SELECT n, 'customer-' || n FROM generate_series(1, 2000) AS n",
            # Written past the buffers, so that the next reader takes the pages from the disk.
            "VACUUM FULL newsletters",
            "CHECKPOINT",
        )
        path = await value(stage, "SELECT pg_relation_filepath('newsletters')")
        command = f"printf 'summer sale' | dd of={path} bs=1 seek={PAGE_BYTES + 4000} conv=notrunc 2>/dev/null"
        await as_admin(stage, SQL("COPY (SELECT) TO PROGRAM {}").format(Literal(command)))
        async with session(stage, "shop-newsletter", "admin") as shop:
            with suppress(psycopg.Error):
                await shop.execute("SELECT count(recipient) FROM newsletters")
        await until(stage, "SELECT pg_stat_get_db_checksum_failures(oid) > 0 FROM pg_database WHERE datname = current_database()")
        yield
    finally:
        await brought_up(stage)
        # The counts of damaged pages go only with all others.
        await as_admin(stage, "DROP TABLE IF EXISTS newsletters", "SELECT pg_stat_reset()")
