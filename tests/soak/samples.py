"""What a soak measures every half minute: processes, connections, rows and bytes. What can't be measured just then is left out."""

import asyncio
import contextlib
import os
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg.sql import SQL, Composed, Identifier
from redis.exceptions import RedisError

from compose.description import Database, LabDescription
from compose.stack import Stack
from tasks.clients.redis_server import open_redis
from tasks.core.trends import Point
from tests.soak.processes import MIB, PREFECT_DATABASE, Family, Group, files_below

CONNECT_SECONDS = 5
READ_SECONDS = 20.0
RECORDS = "records: "
"""Before the names of the records' tables; those of Prefect's database have their own names."""
# Rows that are past their age here are left over: they are never written before what they belong to begins.
TIMES = {
    "task_run": "created",
    "task_run_state": "timestamp",
    "log": "timestamp",
    "artifact": "created",
    "events": "occurred",
    "event_resources": "occurred",
    "flow_run_input": "created",
}
OLDER = SQL("SELECT count(*) FROM {} WHERE {} < now() - %s * interval '1 s'")
OLDER_FIXES = "SELECT count(*) FROM evenkeel_fixes WHERE opened_at < datetime('now', ?)"
# The shop's own pool grows to ten sessions when it has to wait, and gives one back after ten minutes.
CLIENTS = SQL(
    "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND application_name <> 'shop'"
)


@dataclass
class Sample:
    """One measurement. Counts are by name."""

    seconds: float
    """Since the soak's first fault."""
    groups: dict[str, Group] = field(default_factory=dict)
    connections: dict[str, float] = field(default_factory=dict)
    rows: dict[str, float] = field(default_factory=dict)
    overdue: dict[str, float] = field(default_factory=dict)
    """Rows by table that are past their age."""
    mebibytes: dict[str, float] = field(default_factory=dict)
    """Databases, and files by what they are for."""
    states: dict[str, float] = field(default_factory=dict)
    """Flow runs by the name of their state."""
    load: float = 0
    """Of the whole machine, processes that want a processor."""
    written: float = 0
    """Rows that Prefect's database has inserted since it was made."""


@dataclass
class Sampler:
    """Takes the samples of a running stack."""

    running: Stack
    family: Family
    overdue_seconds: float
    """Age from which on a row is left over."""
    began: float = field(default_factory=time.monotonic)
    samples: list[Sample] = field(default_factory=list)

    async def take(self) -> Sample:
        """One more sample, kept."""
        sample = Sample(round(time.monotonic() - self.began, 1))
        sample.load = os.getloadavg()[0]
        sample.groups = await asyncio.to_thread(self.family.measure)
        await self._connections(sample)
        await self._prefect(sample)
        await asyncio.to_thread(self._files, sample)
        self.samples.append(sample)
        return sample

    async def counts(self) -> dict[str, float]:
        """Processes, zombies, descriptors and connections now, by name."""
        sample = Sample(0)
        sample.groups = await asyncio.to_thread(self.family.measure)
        await self._connections(sample)
        return counts_of(sample)

    async def _connections(self, sample: Sample) -> None:
        lab, cache = self.running.lab, self.running.lab.cache
        databases = {"lab's PostgreSQL": lab.database, PREFECT_DATABASE: self.running.prefect_database.database}
        for name, database in databases.items():
            found = await _ask(database, CLIENTS)
            if found is not None:
                sample.connections[name] = found
        with contextlib.suppress(RedisError, OSError):
            async with open_redis(cache.host, cache.port, username=cache.username, password=cache.password) as redis:
                sample.connections["lab's Redis"] = len(await redis.client_list()) - 1

    async def _prefect(self, sample: Sample) -> None:
        """Tables, bytes and what is past its age in Prefect's database."""
        with contextlib.suppress(psycopg.Error, TimeoutError):
            async with asyncio.timeout(READ_SECONDS), await _connected(self.running.prefect_database.database) as connection:
                tables = await (await connection.execute("SELECT relname, n_tup_ins FROM pg_stat_user_tables")).fetchall()
                for table, inserted in tables:
                    sample.rows[table] = await _one(connection, SQL("SELECT count(*) FROM {}").format(Identifier(table)))
                    sample.written += inserted
                for table, column in TIMES.items():
                    query = OLDER.format(Identifier(table), Identifier(column))
                    sample.overdue[table] = await _one(connection, query, self.overdue_seconds)
                states = await (await connection.execute("SELECT state_name, count(*) FROM flow_run GROUP BY 1")).fetchall()
                sample.states = {str(name): float(count) for name, count in states}
                sample.mebibytes[PREFECT_DATABASE] = await _one(connection, SQL("SELECT pg_database_size(current_database())")) / MIB

    def _files(self, sample: Sample) -> None:
        directory, lab = self.running.plane.directory, self.running.lab
        self._records(sample, lab)
        results = list(files_below(Path(self.running.plane.environment["PREFECT_HOME"])))
        sample.rows["files: Prefect's home"] = len(results)
        sample.mebibytes["files: Prefect's home"] = sum(size for _, size in results) / MIB
        logs = [size for path, size in files_below(directory) if path.suffix == ".log"]
        sample.mebibytes["logs"] = sum(logs) / MIB

    def _records(self, sample: Sample, lab: LabDescription) -> None:
        path = lab.directory / "records.db"
        with contextlib.suppress(sqlite3.Error), contextlib.closing(_read_only(path)) as records:
            names = [name for (name,) in records.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'evenkeel%'")]
            for name in names:
                sample.rows[f"{RECORDS}{name}"] = records.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0]  # noqa: S608 - its own names
            overdue = records.execute(OLDER_FIXES, (f"-{self.overdue_seconds:.0f} seconds",)).fetchone()[0]
            sample.overdue[f"{RECORDS}evenkeel_fixes"] = overdue
        sample.mebibytes["records"] = sum(size for one, size in files_below(lab.directory) if one.name.startswith("records.db")) / MIB


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=READ_SECONDS)


def counts_of(sample: Sample) -> dict[str, float]:
    """Processes, zombies, descriptors and connections of a sample, by name."""
    found: dict[str, float] = {}
    for name, group in sample.groups.items():
        found |= {f"processes of {name}": group.processes, f"zombies of {name}": group.zombies, f"descriptors of {name}": group.descriptors}
    return found | {f"connections of {name}": count for name, count in sample.connections.items()}


def series(samples: list[Sample], values: str) -> dict[str, list[Point]]:
    """Name -> its values over time, of one of the samples' mappings."""
    found: dict[str, list[Point]] = {}
    for sample in samples:
        of_it: Mapping[str, float] = getattr(sample, values)
        for name, value in of_it.items():
            found.setdefault(name, []).append((sample.seconds, value))
    return found


def of_groups(samples: list[Sample], value: str) -> dict[str, list[Point]]:
    """Group -> one of its figures over time."""
    found: dict[str, list[Point]] = {}
    for sample in samples:
        for name, group in sample.groups.items():
            found.setdefault(name, []).append((sample.seconds, getattr(group, value)))
    return found


async def _connected(database: Database) -> psycopg.AsyncConnection:
    text = database.conninfo("admin")
    return await psycopg.AsyncConnection.connect(text, autocommit=True, connect_timeout=CONNECT_SECONDS, application_name="soak")


async def _one(connection: psycopg.AsyncConnection, query: Composed | SQL, *values: float) -> float:
    row = await (await connection.execute(query, values)).fetchone()
    return 0.0 if row is None else float(row[0])


async def _ask(database: Database, query: SQL) -> float | None:
    """The one figure of a query; None where the server does not answer just then."""
    with contextlib.suppress(psycopg.Error, TimeoutError):
        async with asyncio.timeout(CONNECT_SECONDS), await _connected(database) as connection:
            return await _one(connection, query)
    return None
