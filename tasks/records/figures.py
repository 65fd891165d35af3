"""What the records amount to, in figures: a few queries that count where the rows are."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, case, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from blocks.model import Model
from tasks.core.models import Health, Usage, Verdict
from tasks.records.database import Database
from tasks.records.tables import fixes, monitors, planner_use, planners, statuses, steps

BUCKET_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)


class Watched(Model):
    """A resource as it was last seen."""

    inventory: str
    resource: str
    health: Health
    headline: float | None
    since: datetime


class Counted(Model):
    """How many fixes are on record with these names; no verdict: under way."""

    inventory: str
    resource: str
    verdict: Verdict | None
    count: int


class Healing(Model):
    """How long it took from an incident until all was measured healthy."""

    inventory: str
    count: int
    seconds: float
    at_most: tuple[int, ...]
    """So many of them took at most as long as BUCKET_SECONDS says."""


class Used(Model):
    """What a planner's account has used since the beginning, and how it does."""

    name: str
    usage: Usage
    failures: int = 0
    open_until: datetime | None = None


class Figures(Model):
    """The records in figures. What is counted of fixes and steps goes with them when they are deleted."""

    watched: tuple[Watched, ...]
    sweeps: dict[str, datetime | None]
    """Monitor -> its last sweep; none yet, or nobody sweeps: None."""
    fixes: tuple[Counted, ...]
    waiting: dict[str, int]
    """Inventory -> fixes that wait for a person."""
    healing: tuple[Healing, ...]
    steps: dict[tuple[str, str], int]
    """Tool and how it ended -> how often."""
    used: tuple[Used, ...]


class Counting:
    """What is done for figures. Raises RecordsUnavailable where the database can't be reached."""

    _database: Database

    async def figures(self) -> Figures:
        """All of them, as of one moment."""
        async with self._database.begin() as connection:
            seen = select(*(statuses.c[name] for name in Watched.model_fields)).order_by(statuses.c.inventory, statuses.c.resource)
            groups = (fixes.c.inventory, fixes.c.resource, fixes.c.verdict)
            counted = select(*groups, func.count().label("count")).group_by(*groups).order_by(*groups)
            swept = select(monitors.c.inventory, monitors.c.last_sweep_at).order_by(monitors.c.inventory)
            return Figures(
                watched=tuple(Watched.model_validate(dict(row)) for row in await _rows(connection, seen)),
                sweeps={row["inventory"]: row["last_sweep_at"] for row in await _rows(connection, swept)},
                fixes=tuple(Counted.model_validate(dict(row)) for row in await _rows(connection, counted)),
                waiting={row["inventory"]: row["count"] for row in await _rows(connection, _waiting())},
                healing=tuple([_healing_of(row) for row in await _rows(connection, _healing())]),
                steps={(row["tool"], row["status"] or "interrupted"): row["count"] for row in await _rows(connection, _steps())},
                used=await _used(connection),
            )


def _waiting() -> Select[Any]:
    open_ones = (fixes.c.closed_at.is_(None), fixes.c.waiting_until.is_not(None))
    return select(fixes.c.inventory, func.count().label("count")).where(*open_ones).group_by(fixes.c.inventory)


def _healing() -> Select[Any]:
    seconds: ColumnElement[float] = fixes.c.timings["healthy"].as_float()
    at_most = [func.sum(case((seconds <= most, 1), else_=0)).label(f"most_{place}") for place, most in enumerate(BUCKET_SECONDS)]
    sums = (func.count().label("count"), func.sum(seconds).label("seconds"), *at_most)
    healed = (fixes.c.verdict == Verdict.COMPLETED.value, seconds.is_not(None))
    return select(fixes.c.inventory, *sums).where(*healed).group_by(fixes.c.inventory).order_by(fixes.c.inventory)


def _healing_of(row: Any) -> Healing:
    at_most = tuple(row[f"most_{place}"] for place in range(len(BUCKET_SECONDS)))
    return Healing(inventory=row["inventory"], count=row["count"], seconds=row["seconds"], at_most=at_most)


def _steps() -> Select[Any]:
    inside = select(steps.c.step["tool"].as_string().label("tool"), steps.c.outcome["status"].as_string().label("status")).subquery()
    groups = (inside.c.tool, inside.c.status)
    return select(*groups, func.count().label("count")).group_by(*groups).order_by(*groups)


async def _used(connection: AsyncConnection) -> tuple[Used, ...]:
    sums = [func.sum(planner_use.c[name]).label(name) for name in Usage.model_fields]
    query = select(planner_use.c.name, *sums).group_by(planner_use.c.name)
    found = {row["name"]: Used(name=row["name"], usage=Usage.model_validate(_without_name(row))) for row in await _rows(connection, query)}
    for row in await _rows(connection, select(planners.c.name, planners.c.failures, planners.c.open_until)):
        known = found.get(row["name"], Used(name=row["name"], usage=Usage()))
        found[row["name"]] = known.model_copy(update={"failures": row["failures"], "open_until": row["open_until"]})
    return tuple(found[name] for name in sorted(found))


def _without_name(row: Any) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "name"}


async def _rows(connection: AsyncConnection, query: Select[Any]) -> Sequence[Any]:
    return (await connection.execute(query)).mappings().all()
