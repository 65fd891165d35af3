"""Records on each database that they support, and rows to put into them."""

from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from blocks.records_url import records_url
from blocks.schema import Kind
from compose.description import LabDescription
from tasks.core.models import FixRecord, Health, Incident, Observation, Reading
from tasks.records.repository import Records
from tasks.records.schema import VERSION_TABLE
from tasks.records.tables import metadata

T0 = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
MakeRecord = Callable[..., FixRecord]
Query = Callable[..., Any]


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of each kind, as a user who may do no more than own tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/below/records.db"
        return
    server: LabDescription = request.getfixturevalue("fresh_database")
    conninfo = server.database.conninfo("application")
    yield conninfo
    with psycopg.connect(conninfo) as connection:
        for name in (*(table.name for table in reversed(metadata.sorted_tables)), VERSION_TABLE):
            connection.execute(f"DROP TABLE IF EXISTS {name}".encode())


@pytest.fixture
async def records(url: str) -> AsyncIterator[Records]:
    """Records in an empty database."""
    async with await Records.open(url) as opened:
        yield opened


@pytest.fixture
def make_record() -> MakeRecord:
    """A new fix of a resource of the inventory `lab`."""

    def make(fix_id: str = "fix-1", resource: str = "shop-cache", inventory: str = "lab", opened_at: datetime = T0) -> FixRecord:
        observation = Observation(
            resource=resource,
            kind=Kind.REDIS,
            health=Health.DEGRADED,
            reading=Reading(values={"memory_percent": 96.5}),
            summary="memory at 96.5 %",
            taken_at=opened_at,
        )
        incident = Incident(
            id=fix_id,
            inventory=inventory,
            resource=resource,
            kind=Kind.REDIS,
            health=Health.DEGRADED,
            symptoms=("memory_high",),
            summary="memory at 96.5 %",
            opened_at=opened_at,
            observation=observation,
        )
        return FixRecord(id=fix_id, incident=incident, before=observation, flow_run_id="run-1", opened_at=opened_at)

    return make


@pytest.fixture
async def query(url: str) -> AsyncIterator[Query]:
    """Rows of a query on a connection of its own: what really is in the database."""
    engine = create_async_engine(records_url(url))

    async def run(statement: str, **parameters: object) -> list[tuple[Any, ...]]:
        async with engine.connect() as connection:
            return [tuple(row) for row in await connection.execute(text(statement), parameters)]

    yield run
    await engine.dispose()
