"""What monitors leave for each other: the status of every resource, its last readings, and which run watches."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import select, update

from tasks.core.models import Health
from tasks.core.parts import SHARE
from tasks.core.trends import History
from tasks.records.database import Database
from tasks.records.rows import Status
from tasks.records.tables import histories, monitors, statuses

TREND_LENGTH = 20
BATCH = 250
T = TypeVar("T")
NOBODY = "nobody"
SEEN_AT_LEAST_EVERY = timedelta(days=1)


class Sweeps:
    """What is done with statuses and monitors. Every method raises RecordsUnavailable where the database can't be reached."""

    _database: Database

    async def save_statuses(self, inventory: str, seen: Iterable[Status]) -> int:
        """Keep what changed: a row whose health, summary and headline are those that it has is not written.

        So a row's `taken_at` is the time of its last change; that it was looked at since, `current_monitor` tells. Once a day it is
        written all the same, so that what is watched no more can be told from what does not change.
        Returns the number of rows written.
        """
        known = {status.resource: status for status in await self.statuses(inventory)}
        rows = [_row(inventory, one, known.get(one.resource)) for one in seen if _differs(one, known.get(one.resource))]
        upsert = self._database.insert(statuses)
        changed = {column.name: upsert.excluded[column.name] for column in statuses.c if not column.primary_key}
        for batch in _batches(rows):
            async with self._database.begin() as connection:
                await connection.execute(upsert.on_conflict_do_update(index_elements=["inventory", "resource"], set_=changed), batch)
        return len(rows)

    async def statuses(self, inventory: str, health: Collection[Health] = ()) -> list[Status]:
        """The status of every resource that was ever seen, or of those in one of these states, by name."""
        columns = [statuses.c[name] for name in Status.model_fields]
        query = select(*columns).where(statuses.c.inventory == inventory).order_by(statuses.c.resource)
        if health:
            query = query.where(statuses.c.health.in_([one.value for one in health]))
        async with self._database.begin() as connection:
            return [Status.model_validate(dict(row)) for row in (await connection.execute(query)).mappings()]

    async def save_histories(self, inventory: str, seen: Mapping[str, History]) -> None:
        """Keep the last readings of these resources in place of what was kept of them."""
        if not seen:
            return
        rows = [{"inventory": inventory, "resource": name, "points": history} for name, history in seen.items()]
        upsert = self._database.insert(histories)
        changed = {"points": upsert.excluded["points"]}
        for batch in _batches(rows):
            async with self._database.begin() as connection:
                await connection.execute(upsert.on_conflict_do_update(index_elements=["inventory", "resource"], set_=changed), batch)

    async def histories(self, inventory: str, resources: Collection[str]) -> dict[str, History]:
        """Resource -> its last readings, as the monitor before left them; of those of these resources that have any."""
        found: dict[str, History] = {}
        query = select(histories.c.resource, histories.c.points).where(histories.c.inventory == inventory)
        for batch in _batches(sorted(resources)):
            async with self._database.begin() as connection:
                for row in await connection.execute(query.where(histories.c.resource.in_(batch))):
                    found[row.resource] = {metric: tuple((when, value) for when, value in points) for metric, points in row.points.items()}
        return found

    async def take_over_monitor(self, inventory: str, run_id: str, now: datetime) -> None:
        """Make this run the one that watches; the run before it learns so from `monitor_swept`.

        The time of the last sweep stays: what is handed from run to run is watched without a gap.
        """
        values = {"run_id": run_id, "taken_over_at": now}
        insert = self._database.insert(monitors).values(inventory=inventory, **values)
        async with self._database.begin() as connection:
            await connection.execute(insert.on_conflict_do_update(index_elements=["inventory"], set_=values))

    async def release_monitor(self, inventory: str, now: datetime) -> None:
        """End whoever watches, at its next sweep; from now on nobody counts as watching."""
        values = {"run_id": NOBODY, "taken_over_at": now, "last_sweep_at": None}
        insert = self._database.insert(monitors).values(inventory=inventory, **values)
        async with self._database.begin() as connection:
            await connection.execute(insert.on_conflict_do_update(index_elements=["inventory"], set_=values))

    async def current_monitor(self, inventory: str) -> tuple[str, datetime | None] | None:
        """The run that watches and the time of its last sweep; None: none ever did."""
        query = select(monitors.c.run_id, monitors.c.last_sweep_at).where(monitors.c.inventory == inventory)
        async with self._database.begin() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else (row.run_id, row.last_sweep_at)

    async def monitors_at_work(self, inventory: str, since: datetime) -> list[str]:
        """The keys of `tasks.core.parts.Share` of the inventory's monitors that have swept since then, or began to watch.

        Who has only begun counts, so that monitors that start together divide the inventory at once.
        """
        own = (monitors.c.inventory == inventory) | monitors.c.inventory.startswith(f"{inventory}/{SHARE}/", autoescape=True)
        began = (monitors.c.run_id != NOBODY) & (monitors.c.taken_over_at >= since)
        query = select(monitors.c.inventory).where(own, (monitors.c.last_sweep_at >= since) | began).order_by(monitors.c.inventory)
        async with self._database.begin() as connection:
            return [row.inventory for row in await connection.execute(query)]

    async def monitor_swept(self, inventory: str, run_id: str, now: datetime) -> bool:
        """Note a sweep. False: another run has taken over, so the caller has to stop."""
        mine = (monitors.c.inventory == inventory, monitors.c.run_id == run_id)
        async with self._database.begin() as connection:
            return (await connection.execute(update(monitors).where(*mine).values(last_sweep_at=now))).rowcount == 1


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Some of thousands at a time: each is answered in time, and what else this process does goes on in between."""
    for first in range(0, len(items), BATCH):
        yield items[first : first + BATCH]


def _differs(seen: Status, known: Status | None) -> bool:
    if known is None or (seen.health, seen.summary, seen.headline) != (known.health, known.summary, known.headline):
        return True
    return seen.taken_at - known.taken_at >= SEEN_AT_LEAST_EVERY


def _row(inventory: str, seen: Status, known: Status | None) -> dict[str, Any]:
    same_health = known is not None and known.health is seen.health
    trend = () if known is None else known.trend
    if seen.headline is not None and (not trend or trend[-1] != seen.headline):
        trend = (*trend, seen.headline)[-TREND_LENGTH:]
    return {
        "inventory": inventory,
        **seen.model_dump(include={"resource", "summary", "headline", "taken_at"}),
        "health": seen.health.value,
        "since": known.since if known is not None and same_health else seen.taken_at,
        "trend": list(trend),
    }
