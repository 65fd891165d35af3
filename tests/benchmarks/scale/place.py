"""A Prefect server with its database and the records beside it, and how large and how busy they are."""

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
import psycopg
from prefect.settings import temporary_settings
from psycopg.sql import SQL, Identifier

from blocks.inventory_file import Registration
from blocks.register import register
from compose.control_plane import ControlPlane
from compose.description import LabDescription, free_ports
from compose.lab import running_lab
from compose.progress import doing
from compose.records import read_records
from compose.stack import prefect_database_url
from tasks.records.repository import Records
from tests.benchmarks.scale.world import histories

Kind = Literal["PostgreSQL", "SQLite"]
MIB = 2**20
RECORDS = "records"


@dataclass(frozen=True)
class Place:
    """One of the two, running."""

    kind: Kind
    plane: ControlPlane
    records_url: str
    prefect: LabDescription | Path
    """The PostgreSQL server of both databases, or SQLite's file of Prefect."""

    def query_prefect(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Rows of Prefect's database; `?` stands for a parameter."""
        return self._query(self.prefect, None, query, parameters)

    def query_records(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Rows of the records, read past the code that writes them."""
        if isinstance(self.prefect, Path):
            return self._query(self.prefect.with_name("records.db"), None, query, parameters)
        return self._query(self.prefect, RECORDS, query, parameters)

    def _query(self, at: LabDescription | Path, database: str | None, query: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        if isinstance(at, Path):
            with closing(sqlite3.connect(f"file:{at}?mode=ro", uri=True, timeout=10)) as connection:
                return connection.execute(query, parameters).fetchall()
        described = at.database if database is None else at.database.model_copy(update={"dbname": database})
        with psycopg.connect(described.conninfo("admin"), connect_timeout=10) as opened:
            return opened.execute(query.replace("?", "%s").encode(), parameters or None).fetchall()

    def mebibytes(self) -> dict[str, float]:
        """The size of both databases; of SQLite's files without what waits in their logs, or is free in them."""
        if isinstance(self.prefect, Path):
            used = "SELECT (page_count - freelist_count) * page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size"
            sizes = [int(query(used)[0][0]) for query in (self.query_prefect, self.query_records)]
        else:
            asked = "SELECT pg_database_size(current_database())"
            sizes = [int(query(asked)[0][0]) for query in (self.query_prefect, self.query_records)]
        return {"prefect": sizes[0] / MIB, "records": sizes[1] / MIB}

    def mebibytes_of_tables(self) -> dict[str, float]:
        """Prefect's tables with their indexes; nothing for SQLite, which does not tell."""
        if isinstance(self.prefect, Path):
            return {}
        found = self.query_prefect("SELECT relname, pg_total_relation_size(relid) FROM pg_stat_user_tables")
        return {name: int(size) / MIB for name, size in found}

    def tidy(self) -> None:
        """What PostgreSQL's autovacuum does each minute: the room of rows that were written anew can be used again."""
        if isinstance(self.prefect, Path):
            return
        for database in (self.prefect.database.dbname, RECORDS):
            described = self.prefect.database.model_copy(update={"dbname": database})
            with psycopg.connect(described.conninfo("admin"), autocommit=True, connect_timeout=10) as opened:
                opened.execute("VACUUM")

    def cpu_seconds(self) -> dict[str, float]:
        """What the server and the database have used since their start, of user and system time."""
        used = {"server": _family_seconds(self.plane.processes.pid("server")), "database": 0.0}
        if not isinstance(self.prefect, Path):
            records = read_records(self.prefect.directory)
            if records is not None:
                used["database"] = _family_seconds(records.services["database"].pid)
        return used

    async def register(self, registration: Registration) -> None:
        """Save an inventory, and leave the readings of half an hour for its monitors."""
        with temporary_settings(updates=self.plane.client_settings):
            await register(registration)
        async with await Records.open(self.records_url) as records:
            await records.save_histories(registration.inventory.name, histories(registration.inventory))


def _family_seconds(pid: int) -> float:
    """Of a process, what it started, and what it started that is gone by now."""
    total = 0.0
    main = psutil.Process(pid)
    for process in (main, *main.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


@asynccontextmanager
async def running_place(directory: Path, kind: Kind) -> AsyncIterator[Place]:
    """A Prefect server on that kind of database, with empty records on the same kind, for the length of a block."""
    async with AsyncExitStack() as cleanup:
        with doing(f"start a Prefect server on {kind}"):
            prefect: LabDescription | Path = directory / "prefect.db"
            url, records_url = f"sqlite+aiosqlite:///{prefect}", f"sqlite:///{directory / 'records.db'}"
            if kind == "SQLite":
                directory.mkdir(parents=True)
            else:
                prefect = await cleanup.enter_async_context(running_lab(directory / "prefect-database", ["database"]))
                with psycopg.connect(prefect.database.conninfo("admin"), autocommit=True) as connection:
                    owner = prefect.database.logins["application"].username
                    connection.execute(SQL("CREATE DATABASE {} OWNER {}").format(Identifier(RECORDS), Identifier(owner)))
                url = prefect_database_url(prefect)
                records_url = prefect.database.model_copy(update={"dbname": RECORDS}).conninfo("application")
            plane = ControlPlane(directory, free_ports(1)[0], url)
            cleanup.push_async_callback(plane.stop)
            await plane.start_server()
        yield Place(kind, plane, records_url, prefect)
