"""One database: opening it, its schema, and transactions whose errors are the project's own."""

import asyncio
import os
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy import Table, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from blocks.records_url import records_url
from tasks.core.errors import EvenkeelError
from tasks.records.schema import SchemaUnknown, bring_up_to_date
from tasks.records.tables import encode_json

CONNECT_SECONDS = 5.0
REPLY_SECONDS = 10.0
OPEN_SECONDS = 10.0
RETRY_SECONDS = 0.02
SCHEMA_LOCK = 0x65766B6C  # any constant will do: whoever creates the schema holds this lock of PostgreSQL's
FAILURES = (SQLAlchemyError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError)


class RecordsUnavailable(EvenkeelError):
    """The records could not be read or written; where a write was refused, it was refused whole."""


class Database:
    """An engine and its transactions. SQLite gets one connection: its writers would only wait for each other."""

    def __init__(self, engine: AsyncEngine, place: str) -> None:
        self._engine = engine
        self.place = place

    @classmethod
    async def open(cls, given: str | None) -> "Database":
        """Connect, and create or migrate the schema where it is missing or old; any number of processes may do so at once.

        RecordsUnavailable if the URL is none, or the server does not answer within OPEN_SECONDS.
        """
        try:
            url = records_url(given)
        except ValueError as error:
            raise RecordsUnavailable(f"records: {error}") from None
        database = cls(_engine(url), url.render_as_string(hide_password=True))
        async with AsyncExitStack() as stack:
            stack.push_async_callback(database.close)
            try:
                async with asyncio.timeout(OPEN_SECONDS):
                    await database._create_schema()
            except TimeoutError:
                raise RecordsUnavailable(f"records: {database.place} did not answer within {OPEN_SECONDS:g} s") from None
            stack.pop_all()
        return database

    async def close(self) -> None:
        """Close every connection."""
        await self._engine.dispose()

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """A transaction: committed at the end, rolled back on an error."""
        try:
            async with self._engine.begin() as connection:
                yield connection
        except PoolTimeout:
            raise RecordsUnavailable(f"records: {self.place}: no free connection within {REPLY_SECONDS:g} s") from None
        except FAILURES as error:
            cause = error.__cause__ or error
            if isinstance(cause, ValueError):
                raise cause from None  # a value that no column takes: the caller's mistake, not the database's
            raise RecordsUnavailable(f"records: {self.place}: {type(cause).__name__}: {cause}") from error

    def insert(self, table: Table) -> "sqlite.Insert | postgresql.Insert":
        """An INSERT that can have an ON CONFLICT, which both databases know and SQL does not."""
        return sqlite.insert(table) if self._engine.dialect.name == "sqlite" else postgresql.insert(table)

    async def _create_schema(self) -> None:
        is_sqlite = self._engine.dialect.name == "sqlite"
        if is_sqlite:
            await self._switch_to_wal()
        async with self.begin() as connection:
            await connection.exec_driver_sql("BEGIN IMMEDIATE" if is_sqlite else f"SELECT pg_advisory_xact_lock({SCHEMA_LOCK})")
            try:
                await connection.run_sync(bring_up_to_date)
            except SchemaUnknown as error:
                raise RecordsUnavailable(f"records: {self.place}: {error}") from None

    async def _switch_to_wal(self) -> None:
        """Readers and the writer no longer exclude each other. The switch ignores busy_timeout, so it is repeated here."""
        deadline = time.monotonic() + OPEN_SECONDS
        while True:
            try:
                async with self.begin() as connection:
                    await connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            except RecordsUnavailable as error:
                if not isinstance(error.__cause__, OperationalError) or "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return


def _engine(url: URL) -> AsyncEngine:
    # Parameters hold what servers answered: they stay out of error messages.
    common: dict[str, Any] = {"json_serializer": encode_json, "hide_parameters": True, "pool_timeout": REPLY_SECONDS}
    if url.get_backend_name() == "postgresql":
        timeouts = {"timeout": CONNECT_SECONDS, "command_timeout": REPLY_SECONDS}
        return create_async_engine(url, connect_args=timeouts, pool_pre_ping=True, **common)
    _create_private_file(Path(str(url.database)))
    engine = create_async_engine(url, connect_args={"timeout": REPLY_SECONDS}, pool_size=1, max_overflow=0, **common)
    event.listen(engine.sync_engine, "connect", _configure_sqlite)
    return engine


def _create_private_file(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        # Not opened: to close it again would drop the locks that this process's other connections hold on it, and whoever closes
        # the database next would take itself for the last and remove the log that they still read.
        if not os.access(path, os.R_OK | os.W_OK):
            raise RecordsUnavailable(f"records: {path}: not to be read and written; give a path that can be written") from None
    except OSError as error:
        raise RecordsUnavailable(f"records: {path}: {error.strerror}; give a path that can be written") from error


def _configure_sqlite(connection: sqlite3.Connection, _: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys=ON")
    # A commit of the journal is on disk before its step runs, so that not even a power cut lets the step run twice.
    # NORMAL would survive the end of this process only. Measured: 0.02 ms a commit with NORMAL, 0.25 ms with FULL.
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()
