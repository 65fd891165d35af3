"""Faults of Cloud SQL: connections that are used up, storage that is nearly full, a database that crashed."""

import math
from collections.abc import AsyncGenerator

from psycopg.sql import SQL, Literal

from blocks.schema import Kind
from tasks.core.declare import Ending, NoArgs, scenario
from tasks.core.values import number
from tasks.scenarios.google_cloud import ask, simulator
from tasks.scenarios.managed import database_stage
from tasks.scenarios.postgres_sessions import answers, as_admin, until, value
from tasks.scenarios.sessions import held_sessions
from tasks.scenarios.stage import InjectionFailedError, Stage, Unhealed
from tasks.tools.cloud_sql import gcp_sql_restart_instance

SESSIONS_PERCENT = 86
FREE = """
    SELECT current_setting('max_connections')::int * %s::float8 / 100 - count(*) FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
"""
ALL_RUN = """
    SELECT count(*) >= %s FROM pg_stat_activity
    WHERE application_name = %s AND state = 'active' AND query_start < clock_timestamp() - interval '0.2 s'
"""
REPORT = "SELECT count(*) FROM pg_class CROSS JOIN pg_sleep(3600)"
FULL_PERCENT = 98.0
MOST_MIB = 2048
ROWS_OF_A_MIB = 512
"""Four rows of 1.9 KB a page of 8 KiB."""
# What is in the files of the server, as far as it tells.
STORED = """
    SELECT (SELECT sum(pg_database_size(oid)) FROM pg_database) + (SELECT coalesce(sum(size), 0) FROM pg_ls_waldir())
         + pg_tablespace_size('pg_global')
"""
# Unlogged, so that it takes room once.
CREATE = "CREATE UNLOGGED TABLE public.price_history (day bigint, prices text)"
INSERT = SQL("INSERT INTO public.price_history SELECT day, repeat(md5(random()::text), 60) FROM generate_series(1, {rows}) AS day")
DROP = "DROP TABLE IF EXISTS public.price_history"


@scenario(
    title="Cloud SQL connection overload",
    resource_kind=Kind.CLOUD_SQL,
    symptoms={"connections_high", "connections_exhausted"},
    forbidden_tools={"gcp_sql_restart_instance", "gcp_sql_scale_tier", "gcp_sql_grow_storage"},
)
async def gcp_sql_connection_overload(stage: Stage) -> AsyncGenerator[None]:
    """Let report queries that run for an hour use up the connections, up to 86 % of all."""
    async with database_stage(stage) as database:
        wanted = math.ceil(await value(database, FREE, SESSIONS_PERCENT))
        if wanted < 1:
            raise InjectionFailedError(f"{stage.resource.name}: {SESSIONS_PERCENT} % of its connections are in use already")
        async with held_sessions(database, "reports", wanted, REPORT) as left:
            await until(database, ALL_RUN, wanted, "reports", seconds=30)
            yield
            if await left() > 0:
                raise Unhealed(f"{await left()} reports are still running")


@scenario(
    title="Cloud SQL's storage is nearly full",
    resource_kind=Kind.CLOUD_SQL,
    symptoms={"disk_high"},
    expects=Ending.ESCALATED,
    forbidden_tools={"gcp_sql_restart_instance", "gcp_sql_scale_tier", "gcp_sql_kill_long_queries"},
    catalogue=(38,),
)
async def gcp_sql_storage_full(stage: Stage) -> AsyncGenerator[None]:
    """Write a price history until 98 % of the storage are used: more can be had, never less again, so a person decides."""
    async with database_stage(stage) as database:
        try:
            await as_admin(database, CREATE)
            share = number((await stage.observe()).reading.values, "disk_percent")
            if share is None or share <= 0:
                raise InjectionFailedError(f"{stage.resource.name}: Cloud Monitoring tells nothing of its storage")
            stored = int(await value(database, STORED))
            mib = math.ceil(stored * (FULL_PERCENT - share) / share / 2**20)
            if not 0 < mib <= MOST_MIB:
                raise InjectionFailedError(f"{stage.resource.name}: to fill it takes {mib} MiB; {MOST_MIB} at most are written")
            await as_admin(database, INSERT.format(rows=Literal(mib * ROWS_OF_A_MIB)))
            yield
        finally:
            await as_admin(database, DROP)


@scenario(
    title="Cloud SQL's database has crashed",
    resource_kind=Kind.CLOUD_SQL,
    symptoms={"down"},
    forbidden_tools={"gcp_sql_scale_tier", "gcp_sql_grow_storage"},
)
async def gcp_sql_crashed(stage: Stage) -> AsyncGenerator[None]:
    """Kill the database's processes; the API goes on calling the instance RUNNABLE."""
    async with simulator(stage) as admin:
        await ask(admin, "POST", f"/planes/{stage.resource.address}/kill")
    try:
        yield
        async with database_stage(stage) as database:
            if not await answers(database):
                raise Unhealed("the database lets nobody in")
    finally:
        async with database_stage(stage) as database:
            if not await answers(database):
                await gcp_sql_restart_instance(stage.client(), NoArgs())
