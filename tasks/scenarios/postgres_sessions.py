"""How PostgreSQL's scenarios reach the server, whatever state it is in."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, LiteralString

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.sql import Composed

from tasks.scenarios.sessions import conninfo
from tasks.scenarios.stage import InjectionFailedError, Stage, Unhealed

OPERATOR = "psql"
UP_SECONDS = 20.0
POLL_SECONDS = 0.1
CANCEL_SECONDS = 3.0

Connection = psycopg.AsyncConnection[tuple[Any, ...]]


@asynccontextmanager
async def session(stage: Stage, application: str, purpose: str = "application") -> AsyncIterator[Connection]:
    """A session in autocommit mode; at the end its statement is cancelled and the session closed, if it is still there."""
    connection = await psycopg.AsyncConnection.connect(conninfo(stage, purpose, stage.resource, application), autocommit=True)
    try:
        yield connection
    finally:
        if connection.info.transaction_status is TransactionStatus.ACTIVE:
            with suppress(psycopg.Error):
                await connection.cancel_safe(timeout=CANCEL_SECONDS)
        await connection.close()


@asynccontextmanager
async def running(stage: Stage, application: str, statement: LiteralString) -> AsyncIterator[asyncio.Task[object]]:
    """A session of the application's that runs one statement; gives the statement's task."""
    async with session(stage, application) as connection:
        work = asyncio.create_task(connection.execute(statement))
        try:
            yield work
        finally:
            with suppress(psycopg.Error):
                await connection.cancel_safe(timeout=CANCEL_SECONDS)
            # It ends with an error if it did not end by itself.
            await asyncio.wait({work}, timeout=CANCEL_SECONDS)
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)


async def as_admin(stage: Stage, *statements: LiteralString | Composed) -> None:
    """Execute statements as the lab's superuser, one after the other."""
    async with session(stage, OPERATOR, "admin") as connection:
        for statement in statements:
            await connection.execute(statement)


async def value(stage: Stage, query: LiteralString, *params: object, purpose: str = "admin") -> Any:
    """The first value that a query gives; None without a row."""
    async with session(stage, OPERATOR, purpose) as connection:
        row = await (await connection.execute(query, params)).fetchone()
        return None if row is None else row[0]


async def until(stage: Stage, query: LiteralString, *params: object, seconds: float = 15) -> None:
    """Wait until a query's first value is true; InjectionFailedError at the deadline."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not await value(stage, query, *params):
        if asyncio.get_running_loop().time() > deadline:
            raise InjectionFailedError(f"{stage.resource.name}: not within {seconds:g} s: {query} {params}")
        await asyncio.sleep(POLL_SECONDS)


async def answers(stage: Stage) -> bool:
    """Whether the server lets somebody in."""
    try:
        await value(stage, "SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


async def brought_up(stage: Stage) -> None:
    """Start the server where it lets nobody in, and wait until it does; InjectionFailedError at the deadline."""
    if await answers(stage):
        return
    await stage.runtime().restart()
    deadline = asyncio.get_running_loop().time() + UP_SECONDS
    while not await answers(stage):
        if asyncio.get_running_loop().time() > deadline:
            raise InjectionFailedError(f"{stage.resource.name}: lets nobody in {UP_SECONDS:g} s after its restart")
        await asyncio.sleep(POLL_SECONDS)


async def start_of(stage: Stage) -> Any:
    """When the server was started."""
    return await value(stage, "SELECT pg_postmaster_start_time()")


async def require_no_restart(stage: Stage, before: Any) -> None:
    """Unhealed where the server was started since."""
    now = await start_of(stage)
    if now != before:
        raise Unhealed(f"{stage.resource.name} was restarted at {now}, which this fault does not need")


async def sessions_of(stage: Stage, application: str) -> int:
    """How many sessions of an application there are."""
    found = await value(stage, "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", application)
    return int(found)
