"""Old databases are brought up to date in place, with what they hold, and come out as new ones are made."""

import asyncio
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from blocks.records_url import records_url
from tasks.core.models import FixRecord
from tasks.records.database import RecordsUnavailable
from tasks.records.repository import Records
from tasks.records.rows import story
from tasks.records.schema import FIRST, LATEST, VERSION_TABLE, migrate
from tasks.records.tables import encode_json, fixes, metadata
from tests.tasks.records.conftest import T0

MakeRecord = Callable[..., FixRecord]
Query = Callable[..., Any]
REVISION = "SELECT version_num FROM evenkeel_version"


async def on(url: str, work: Callable[[Connection], Any]) -> Any:
    """Something done on a connection of its own."""
    engine = create_async_engine(records_url(url), json_serializer=encode_json)
    try:
        async with engine.begin() as connection:
            return await connection.run_sync(work)
    finally:
        await engine.dispose()


def differences(connection: Connection) -> list[Any]:
    """How the database differs from the tables that the records use, as alembic finds it."""
    own = {table.name for table in metadata.sorted_tables} | {f"ix_{table.name}" for table in metadata.sorted_tables}

    def wanted(_object: Any, name: str | None, kind: str, reflected: bool, _other: Any) -> bool:
        return kind != "table" or not reflected or name in own

    context = MigrationContext.configure(connection, opts={"compare_type": True, "include_object": wanted, "version_table": VERSION_TABLE})
    return [*compare_metadata(context, metadata)]


async def make_old(url: str, fix: FixRecord, *, named: bool) -> None:
    """A database of the first revision with an open fix; before there were revisions, none was named."""

    def make(connection: Connection) -> None:
        migrate(connection, FIRST)
        row = {"inventory": "lab", "resource": "shop-cache", "owner": "me", "opened_at": T0, "heartbeat_at": T0}
        connection.execute(fixes.insert().values(id=fix.id, **row, **story(fix)))
        if not named:
            connection.exec_driver_sql(f"DROP TABLE {VERSION_TABLE}")

    if url.startswith("sqlite"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir(exist_ok=True)
    await on(url, make)


@pytest.mark.parametrize("named", [False, True])
async def test_an_old_database_keeps_what_it_holds_and_becomes_what_a_new_one_is(
    url: str, named: bool, make_record: MakeRecord, query: Query
) -> None:
    fix = make_record()
    await make_old(url, fix, named=named)
    assert await on(url, differences) != []
    # Several processes find it at once.
    opened = await asyncio.gather(*(Records.open(url) for _ in range(3)))
    for records in opened:
        assert await records.get(fix.id) == fix
    assert not await opened[0].open_fix(make_record("other"), "another", T0), "its lock holds"
    assert await opened[0].saved_incidents() != []
    await asyncio.gather(*(records.close() for records in opened))
    assert await on(url, differences) == []
    assert await query(REVISION) == [(LATEST,)]


async def test_a_new_database_is_as_the_tables_say_and_its_revision_is_the_latest(records: Records, url: str, query: Query) -> None:
    assert await on(url, differences) == []
    assert await query(REVISION) == [(LATEST,)]


async def test_a_database_of_a_newer_version_is_left_alone(url: str, records: Records, query: Query) -> None:
    await on(url, lambda connection: connection.exec_driver_sql("UPDATE evenkeel_version SET version_num = '9999'"))
    with pytest.raises(RecordsUnavailable, match=r"revision '9999', and this version knows up to \d{4}; upgrade evenkeel"):
        await Records.open(url)
    assert await query(REVISION) == [("9999",)]


async def test_a_migration_that_fails_changes_nothing(tmp_path: Path, make_record: MakeRecord) -> None:
    url = f"sqlite:///{tmp_path}/records.db"
    await make_old(url, make_record(), named=True)
    with closing(sqlite3.connect(tmp_path / "records.db")) as database:
        # The name of the second table that is to come is taken.
        database.execute("CREATE INDEX evenkeel_shadows ON evenkeel_steps (ordinal)")
        before = database.execute("SELECT name FROM sqlite_master ORDER BY name").fetchall()
    with pytest.raises(RecordsUnavailable, match="evenkeel_shadows"):
        await Records.open(url)
    with closing(sqlite3.connect(tmp_path / "records.db")) as database:
        assert database.execute("SELECT name FROM sqlite_master ORDER BY name").fetchall() == before
        assert database.execute(REVISION).fetchall() == [(FIRST,)]


async def test_who_has_nothing_to_migrate_does_not_load_what_migrates(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/records.db"
    script = (
        "import asyncio, sys\nfrom tasks.records.repository import Records\n"
        "async def main():\n    for _ in range(2): await (await Records.open(sys.argv[1])).close()\n"
        "asyncio.run(main())\nprint('alembic' in sys.modules)"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, url, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    assert output.decode().strip() == "False"
