"""Opening records: files, servers, and what can't be opened."""

import asyncio
import contextlib
import sqlite3
import stat
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from tasks.records.database import RecordsUnavailable
from tasks.records.repository import Records


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_the_file_is_private_and_its_settings_are_durable(records: Records, tmp_path: Path) -> None:
    folder = tmp_path / "below"
    for path in [folder, *folder.iterdir()]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    async with records._database.begin() as connection:
        pragmas = {
            name: (await connection.execute(text(f"PRAGMA {name}"))).scalar_one()
            for name in ("journal_mode", "synchronous", "busy_timeout", "foreign_keys")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "busy_timeout": 10_000, "foreign_keys": 1}


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("mysql://root:s3cret@localhost/x", "use sqlite:///"),
        ("not a url s3cret", "no database URL"),
        ("postgresql://me:s3cret@localhost:port/x", "no database URL"),
        ("sqlite://", "need a file"),
        ("sqlite:///:memory:", "need a file"),
        ("postgresql://me:s3cret@localhost", "names no database"),
        ("postgresql://me:s3cret@127.0.0.1:1/x", "ConnectionRefusedError"),
    ],
)
async def test_records_that_cannot_be_opened_say_why_and_keep_the_password(bad: str, said: str) -> None:
    with pytest.raises(RecordsUnavailable) as caught:
        await Records.open(bad)
    assert said in str(caught.value)
    assert "s3cret" not in str(caught.value)


async def test_a_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RecordsUnavailable, match=r"file/records.db: .*; give a path that can be written"):
        await Records.open(f"sqlite:///{tmp_path}/file/records.db")


async def test_opening_waits_for_whoever_writes_to_a_file_that_is_not_in_wal_mode_yet(tmp_path: Path) -> None:
    writer = sqlite3.connect(tmp_path / "records.db", isolation_level=None)
    with contextlib.closing(writer):
        writer.execute("CREATE TABLE theirs (a)")
        writer.execute("BEGIN IMMEDIATE")
        opening = asyncio.create_task(Records.open(f"sqlite:///{tmp_path}/records.db"))
        done, _ = await asyncio.wait([opening], timeout=0.3)
        assert not done, "it neither failed nor went past the writer"
        writer.execute("ROLLBACK")
        async with await opening as records:
            assert await records.history() == []


INSERT = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=20)
with connection:
    connection.execute("CREATE TABLE IF NOT EXISTS theirs (number)")
    connection.execute("INSERT INTO theirs SELECT count(*) FROM theirs")
connection.close()
"""


async def test_what_another_process_writes_is_seen_also_after_a_second_opening_in_this_one(tmp_path: Path) -> None:
    path = tmp_path / "records.db"
    async with await Records.open(f"sqlite:///{path}") as first, await Records.open(f"sqlite:///{path}") as second:
        for written in (1, 2):
            # Whoever closes a database as the last one removes its log; a lock that is held here tells it that it is not.
            other = await asyncio.create_subprocess_exec(sys.executable, "-c", INSERT, str(path))
            assert await other.wait() == 0
            for records in (first, second):
                async with records._database.begin() as connection:
                    assert (await connection.execute(text("SELECT count(*) FROM theirs"))).scalar_one() == written


async def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "records.db"
    path.write_text("this is a diary, and a long one" * 100)
    with pytest.raises(RecordsUnavailable, match="file is not a database"):
        await Records.open(f"sqlite:///{path}")
    assert path.read_text().startswith("this is a diary")
