"""Faults of PostgreSQL."""

from collections.abc import AsyncGenerator

from blocks.schema import Kind
from tasks.core.declare import scenario
from tasks.scenarios.stage import Stage

CONNECTIONS = 86
QUERY_SECONDS = 3600


@scenario(
    title="PostgreSQL connection overload",
    resource_kind=Kind.POSTGRES,
    symptoms={"connections_high", "connections_exhausted"},
    forbidden_tools={"postgres_restart", "postgres_scale_connections"},
)
async def postgres_connection_overload(stage: Stage) -> AsyncGenerator[None]:
    """Hold 86 of 100 connections with queries that last an hour."""
    try:
        await stage.loads.start("database/blocking", connections=CONNECTIONS, seconds=QUERY_SECONDS)
        yield
    finally:
        await stage.loads.stop("database/blocking")
