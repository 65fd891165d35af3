"""What keeps the records from growing for ever, and tells how large they are."""

from datetime import datetime

from sqlalchemy import Column, ColumnElement, Select, and_, delete, exists, func, or_, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from blocks.model import Model
from tasks.records.database import Database
from tasks.records.sweeps import SEEN_AT_LEAST_EVERY
from tasks.records.tables import fixes, histories, metadata, monitors, statuses

BATCH = 500
"""So many fixes are deleted in one transaction: a first clean-up after years is no longer than a later one for whoever waits for it."""


class Removed(Model):
    """How many of each were deleted."""

    fixes: int
    resources: int
    """Those that no monitor has looked at since: their status and last readings."""
    monitors: int


class TableSize(Model):
    """One table with its indexes."""

    table: str
    rows: int
    kibibytes: float | None
    """None where the database does not tell."""


class Housekeeping:
    """What is done about old rows. Every method raises RecordsUnavailable where the database can't be reached."""

    _database: Database

    async def delete_old(self, before: datetime, keep_of_each_resource: int = 0) -> Removed:
        """Delete fixes that were closed before then, and what is left of resources and monitors that are no more.

        Never deleted are fixes that are open, and so many of the newest of each resource that is still watched. With a fix go its
        journal, the questions that were asked about it and the plans made in its shadow.
        """
        gone = before - 2 * SEEN_AT_LEAST_EVERY
        async with self._database.begin() as connection:
            resources = (await connection.execute(delete(statuses).where(statuses.c.taken_at < gone))).rowcount
            await connection.execute(delete(histories).where(~_is_watched(histories.c.inventory, histories.c.resource)))
            idle = (monitors.c.taken_over_at < gone, or_(monitors.c.last_sweep_at.is_(None), monitors.c.last_sweep_at < gone))
            ended = (await connection.execute(delete(monitors).where(*idle))).rowcount
            old = list((await connection.execute(_old(before, keep_of_each_resource))).scalars())
        for start in range(0, len(old), BATCH):
            async with self._database.begin() as connection:
                await connection.execute(delete(fixes).where(fixes.c.id.in_(old[start : start + BATCH])))
        return Removed(fixes=len(old), resources=resources, monitors=ended)

    async def sizes(self) -> tuple[TableSize, ...]:
        """The records' tables, the largest first."""
        names = [table.name for table in metadata.sorted_tables]
        async with self._database.begin() as connection:
            counts = {
                table.name: (await connection.execute(select(func.count()).select_from(table))).scalar_one()
                for table in metadata.sorted_tables
            }
            used = await (_of_sqlite if connection.dialect.name == "sqlite" else _of_postgresql)(connection, names)
        found = [TableSize(table=name, rows=counts[name], kibibytes=used.get(name)) for name in names]
        return tuple(sorted(found, key=lambda one: (-(one.kibibytes or 0), -one.rows, one.table)))


def _is_watched(inventory: Column[str] | ColumnElement[str], resource: Column[str] | ColumnElement[str]) -> ColumnElement[bool]:
    return exists().where(statuses.c.inventory == inventory, statuses.c.resource == resource)


def _old(before: datetime, keep_of_each_resource: int) -> Select[tuple[str]]:
    newest_first = func.row_number().over(
        partition_by=(fixes.c.inventory, fixes.c.resource), order_by=(fixes.c.opened_at.desc(), fixes.c.id)
    )
    columns = (fixes.c.id, fixes.c.inventory, fixes.c.resource, fixes.c.closed_at, newest_first.label("place"))
    ranked = select(*columns).where(fixes.c.closed_at.is_not(None)).subquery()
    is_kept = and_(ranked.c.place <= keep_of_each_resource, _is_watched(ranked.c.inventory, ranked.c.resource))
    return select(ranked.c.id).where(ranked.c.closed_at < before, ~is_kept).order_by(ranked.c.closed_at)


async def _of_postgresql(connection: AsyncConnection, names: list[str]) -> dict[str, float]:
    query = text("SELECT pg_total_relation_size(CAST(CAST(:name AS text) AS regclass))")
    return {name: (await connection.execute(query, {"name": name})).scalar_one() / 1024 for name in names}


async def _of_sqlite(connection: AsyncConnection, names: list[str]) -> dict[str, float]:
    if "ENABLE_DBSTAT_VTAB" not in (await connection.execute(text("PRAGMA compile_options"))).scalars().all():
        return {}
    pages = text("SELECT m.tbl_name, sum(d.pgsize) FROM dbstat AS d JOIN sqlite_master AS m ON m.name = d.name GROUP BY m.tbl_name")
    found = {row[0]: row[1] / 1024 for row in await connection.execute(pages)}
    return {name: found[name] for name in names if name in found}
