"""Sessions at PostgreSQL that a scenario holds as the shop's own user."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import psycopg
from psycopg.conninfo import make_conninfo

from blocks.schema import Resource
from tasks.scenarios.stage import InjectionFailedError, Stage

CONNECT_SECONDS = 5
RESTORE_SECONDS = 15.0


def conninfo(stage: Stage, purpose: str, resource: Resource, application: str) -> str:
    """How to connect with one of the inventory's logins, under an application's name. It holds the password."""
    user, password = stage.login(purpose, resource.name)
    server, _, database = resource.address.partition("/")
    host, _, port = server.rpartition(":")
    return make_conninfo(
        host=host, port=port, dbname=database, user=user, password=password, application_name=application, connect_timeout=CONNECT_SECONDS
    )


@asynccontextmanager
async def held_sessions(
    stage: Stage, application: str, count: int, statement: str, purpose: str = "application"
) -> AsyncIterator[Callable[[], Awaitable[int]]]:
    """That many sessions of one application, each in that statement; gives a function that counts those still at the server.

    InjectionFailedError where the server does not let all of them in. Whatever is left of them ends with the context.
    """
    resource = stage.resource
    text = conninfo(stage, purpose, resource, application)
    sessions: list[psycopg.AsyncConnection] = []
    work: list[asyncio.Task[object]] = []

    async def left() -> int:
        query = "SELECT count(*) AS sessions FROM pg_stat_activity WHERE application_name = %(application)s"
        rows = await stage.client().ask(query, {"application": application})
        return int(rows[0]["sessions"])

    try:
        for _ in range(count):
            try:
                session = await psycopg.AsyncConnection.connect(text, autocommit=True)
            except psycopg.Error as error:
                raise InjectionFailedError(f"{resource.name}: session {len(sessions) + 1} of {count} was refused: {error}") from error
            sessions.append(session)
            work.append(asyncio.create_task(session.execute(statement.encode())))
        yield left
    finally:
        await _end(stage, application, sessions, work)


async def _end(stage: Stage, application: str, sessions: list[psycopg.AsyncConnection], work: list[asyncio.Task[object]]) -> None:
    """End them at the server too: one whose client is gone goes on with its statement."""
    query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %(application)s"
    async with asyncio.timeout(RESTORE_SECONDS):
        await stage.client().ask(query, {"application": application})
        # What they were in the middle of ends with an error, as it has to.
        await asyncio.gather(*work, return_exceptions=True)
        await asyncio.gather(*(session.close() for session in sessions))
