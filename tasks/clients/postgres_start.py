"""Starting a PostgreSQL server, and seeing that it answers."""

from collections.abc import Awaitable
from datetime import datetime
from typing import NamedTuple

from psycopg.sql import SQL

from tasks.clients.polling import poll
from tasks.clients.postgres import PostgresClient
from tasks.clients.runtime import Runtime, ServiceStatus
from tasks.core.errors import ToolFailed, Unreachable

UP_SECONDS = 10.0
LOG_LINES = 3

_START = SQL("""
    SELECT pg_postmaster_start_time() AS started_at, extract(epoch FROM clock_timestamp() - pg_postmaster_start_time())::float8 AS uptime
""")


class Start(NamedTuple):
    """One start of the server."""

    at: datetime
    uptime_seconds: float


def described(start: Start | None) -> dict[str, str | None]:
    """As a tool's result shows it."""
    return {"answers": "no" if start is None else "yes", "started_at": None if start is None else start.at.isoformat()}


async def start_of(client: PostgresClient) -> Start | None:
    """The current start, None while the server does not answer. ToolFailed where the monitor is not let in."""
    try:
        row = (await client.read(_START))[0]
    except Unreachable:
        return None
    return Start(row["started_at"], row["uptime"])


async def started(client: PostgresClient, runtime: Runtime, how: Awaitable[ServiceStatus], before: Start | None) -> Start:
    """Start or restart it and wait for an answer of a later start; ToolFailed with the end of the log when there is none."""

    async def later_start() -> Start | None:
        start = await start_of(client)
        return start if start is not None and (before is None or start.at > before.at) else None

    await how
    start = await poll(later_start, seconds=UP_SECONDS, every_seconds=0.02)
    if start is None:
        log = " | ".join(await runtime.log(LOG_LINES))
        raise ToolFailed(f"{client.resource.name}: does not answer {UP_SECONDS:g} s after its start; its log ends: {log}")
    return start
